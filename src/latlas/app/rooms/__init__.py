"""What happens in each room: functions from models, images and settings to values, pictures and words; no web library."""
