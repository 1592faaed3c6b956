// Pictures open over the page; arrow keys go on, Escape closes. Other files open in a tab of their own, and so does a
// picture clicked with a modifier key.

const box = document.getElementById("lightbox");
const image = document.getElementById("lightbox-image");
let current = null;

const tiles = () => [...document.querySelectorAll('.tile[data-kind="image"]')];

function show(tile) {
  current = tile.href;
  image.src = tile.href;
  image.alt = document.getElementById("lightbox-name").textContent = tile.querySelector(".name").textContent;
  document.getElementById("lightbox-original").href = tile.href;
  if (!box.open) box.showModal();
}

function step(by) {
  const all = tiles();
  const at = all.findIndex((tile) => tile.href === current);
  if (all.length) show(all[(at + by + all.length) % all.length]);
}

document.addEventListener("click", (event) => {
  const tile = event.target.closest('.tile[data-kind="image"]');
  if (!tile || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(tile);
});
document.getElementById("lightbox-previous").addEventListener("click", () => step(-1));
document.getElementById("lightbox-next").addEventListener("click", () => step(1));
document.getElementById("lightbox-close").addEventListener("click", () => box.close());
box.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
box.addEventListener("click", (event) => {
  if (event.target === box || event.target === image) box.close();
});
box.addEventListener("close", () => image.removeAttribute("src"));
