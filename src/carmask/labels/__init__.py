"""Labels as people's tools keep them: shapes with a class, in files of COCO, LabelMe, CVAT, Label Studio and others."""
