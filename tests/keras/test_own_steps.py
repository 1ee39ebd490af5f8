"""Models that write their own training step, in the forms that each backend's guide shows."""

from __future__ import annotations

import keras
import pytest

from lensai_integrations.keras import BaselineCallback

layers = keras.layers


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm = layers.BatchNormalization()
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.drop = layers.Dropout(0.3)
        self.fc = layers.Dense(4, name="fc")

    def call(self, x, training=False):
        return self.fc(self.drop(self.pool(self.norm(x, training=training)), training=training))


def _tensorflow():
    import tensorflow as tf

    class WithTape(Own):
        def train_step(self, data):
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True), sample_weight=weight)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    class TwoForwardPasses(Own):
        """As in adversarial training: the second pass sees other images; the first one counts."""

        def train_step(self, data):
            x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
                loss += self.compute_loss(y=y, y_pred=self(tf.concat([x, x], 0), training=True)[: tf.shape(x)[0]])
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"loss": loss}

    return [WithTape, TwoForwardPasses]


def _torch():
    import torch

    class WithBackward(Own):
        def train_step(self, data):
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            self.zero_grad()
            loss = self.compute_loss(y=y, y_pred=self(x, training=True), sample_weight=weight)
            loss.backward()
            weights = list(self.trainable_weights)
            with torch.no_grad():
                self.optimizer.apply([each.value.grad for each in weights], weights)
            return {"loss": loss.item()}

    class InPlace(WithBackward):
        """Normalises its images in place: what is profiled is what the step was handed."""

        def train_step(self, data):
            data[0].sub_(0.5)
            return super().train_step(data)

    return [WithBackward, InPlace]


def _jax():
    import jax

    class WithUpdates(Own):
        """Keras's own loss, differentiated here."""

        def train_step(self, state, data):
            trainable, others, of_optimizer, of_metrics = state
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            differentiated = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
            (loss, (_, _, others, of_metrics)), gradients = differentiated(
                trainable, others, of_metrics, x, y, weight, training=True, optimizer_variables=of_optimizer
            )
            trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
            return {"loss": loss}, (trainable, others, of_optimizer, of_metrics)

    class WithOwnUpdates(Own):
        """The form in Keras's guide: the loss, too, is written here, and has other auxiliary results."""

        def compute_loss_and_updates(
            self, trainable, others, metrics=None, x=None, y=None, weight=None, training=False, **_
        ):
            answer, others = self.stateless_call(trainable, others, x, training=training)
            return self.compute_loss(x, y, answer, weight), (answer, others)

        def train_step(self, state, data):
            trainable, others, of_optimizer, of_metrics = state
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            differentiated = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
            (loss, (_, others)), gradients = differentiated(trainable, others, None, x, y, weight, training=True)
            trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
            return {"loss": loss}, (trainable, others, of_optimizer, of_metrics)

        def test_step(self, state, data):
            trainable, others, of_metrics = state
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            answer, others = self.stateless_call(trainable, others, x, training=False)
            return {"loss": self.compute_loss(x, y, answer, weight)}, (trainable, others, of_metrics)

    class WithStatelessCall(WithOwnUpdates):
        """The loss is a function inside the step."""

        def train_step(self, state, data):
            trainable, others, of_optimizer, of_metrics = state
            x, y, _ = keras.utils.unpack_x_y_sample_weight(data)

            def loss_of(trainable, others):
                answer, others = self.stateless_call(trainable, others, x, training=True)
                return self.compute_loss(x, y, answer), others

            (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, others)
            trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
            return {"loss": loss}, (trainable, others, of_optimizer, of_metrics)

    return [WithUpdates, WithOwnUpdates, WithStatelessCall]


OWN_STEPS = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}[keras.backend.backend()]()


@pytest.mark.parametrize("make", OWN_STEPS, ids=lambda own: own.__name__)
def test_models_with_their_own_steps_train_the_same_and_every_row_is_counted(make, alike, counts):
    callback = BaselineCallback(["pool"], training="all")
    alike(make, callback, compile_arguments={"metrics": None})

    everything = ("inputs", "outputs", "embeddings/pool", "labels")
    assert counts(callback.baseline_.reference) == dict.fromkeys(everything, 50)
    assert counts(callback.baseline_.training) == dict.fromkeys(everything, 70)
    assert callback.baseline_.warnings == []
