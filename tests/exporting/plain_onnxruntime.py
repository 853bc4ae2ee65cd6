import json

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("fast.onnx")
card = json.loads(session.get_modelmeta().custom_metadata_map["carmask"])
photo = Image.open("car.jpg").convert("RGB")
pixels = np.asarray(photo.resize((card["geometry"]["width_px"], card["geometry"]["height_px"])))
probability = session.run(None, {"image": pixels[None]})[0][0]
Image.fromarray(np.asarray(Image.fromarray(probability).resize(photo.size)) >= card["threshold"]).save("mask.png")
