"""What a prompt says and asks for, judged by node definitions alone: ComfyUI's own verdict, needed nodes and models."""
