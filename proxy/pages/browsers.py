"""Browsers by their User-Agent, for people who look at their logins. Pure."""

BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
)


def browser(user_agent: str) -> str:
    """`Firefox, Windows` of a User-Agent; its first word for programs."""
    # Chromium's name is in everybody's, so the special ones are looked for first.
    name = next((shown for word, shown in BROWSERS if word in user_agent), "")
    system = next((shown for word, shown in SYSTEMS if word in user_agent), "")
    if name:
        return f"{name}, {system}" if system else name
    return user_agent.partition("/")[0][:40]
