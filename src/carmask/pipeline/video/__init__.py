"""Moving pictures: cut vehicles out of video files and of what a camera sees, frame by frame."""
