"""Running a trained network behind one small protocol."""
