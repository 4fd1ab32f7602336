"""Writes ``model.ckpt-7.*`` beside this file, with TensorFlow's own Saver (made with TensorFlow 2.21).

    python make_tensorflow_checkpoint.py

The values follow from the names alone (``expected.py``), so that the tests need no TensorFlow.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf
from expected import PARTITIONED, VARIABLES, value

v1 = tf.compat.v1
FOLDER = Path(__file__).parent


def part(whole, shape, dtype, partition_info):
    """The slice of ``whole`` that one partition of a variable starts with."""
    corner = partition_info.var_offset
    index = tuple(slice(start, start + size) for start, size in zip(corner, shape, strict=True))
    return tf.constant(whole[index], dtype)


def main() -> None:
    v1.disable_eager_execution()
    with v1.Graph().as_default():
        for number, (name, (dtype, shape)) in enumerate(VARIABLES.items()):
            with tf.device(f"/job:localhost/replica:0/task:0/device:CPU:{number % 2}"):
                kind = tf.bfloat16 if dtype == "bfloat16" else tf.as_dtype(dtype)
                initial = tf.cast(value(name), kind)
                if name in PARTITIONED:
                    v1.get_variable(
                        name,
                        shape,
                        initializer=partial(part, value(name)),
                        partitioner=lambda shape, dtype, cut=PARTITIONED[name]: list(cut),
                        use_resource=False,
                    )
                else:
                    v1.get_variable(name, initializer=initial)
        v1.get_variable("note", initializer=tf.constant(["a text", "another"]))
        saver = v1.train.Saver(sharded=True, save_relative_paths=True)
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            saver.save(session, str(FOLDER / "model.ckpt"), global_step=7, write_meta_graph=False)
    reader = tf.train.load_checkpoint(str(FOLDER / "model.ckpt-7"))
    for name in VARIABLES:
        assert np.array_equal(reader.get_tensor(name).astype("float64"), value(name)), name


if __name__ == "__main__":
    main()
