"""The modules of matterport/Mask_RCNN (Abdulla 2017), by their names, on this package's models.

A program runs after `from mrcnn import ...` became `from rcnn_keras.compat.mrcnn import ...`, and
`import mrcnn.model as modellib` became `import rcnn_keras.compat.mrcnn.model as modellib`.
"""

__version__ = "2.1"  # of the interface
