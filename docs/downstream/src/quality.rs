//! How good samples of the digits are, by the features of one's own network: FID, KID, precision and its family, copies.
//!
//! [`DigitFeatures`] is all that a network needs to be measured with: it says what its features are of, and computes them.

use candle_core::{DType, Tensor};
use sde_eval::{
    Allow, Estimate, FeatureGaussian, FeatureNetwork, FeatureSet, FeatureSpace, GroupedMoments, Memorisation,
    Prdc, Result, fid, kid, memorisation, prdc,
};

use crate::classes::{Classifier, HIDDEN};

/// The hidden layer of a classifier of digits.
pub struct DigitFeatures {
    classifier: Classifier,
    space: FeatureSpace,
}

impl DigitFeatures {
    /// Of a trained classifier; `weights` tells it from others, by a hash or by how it was trained.
    pub fn new(classifier: Classifier, weights: &str) -> Self {
        let space = FeatureSpace {
            network: "digits-classifier".into(),
            weights_sha256: weights.into(),
            layer: "hidden".into(),
            resize: "none".into(),
            range: "x/8-1".into(),
        };
        Self { classifier, space }
    }
}

impl FeatureNetwork for DigitFeatures {
    fn space(&self) -> &FeatureSpace {
        &self.space
    }

    fn dim(&self) -> usize {
        HIDDEN
    }

    /// Digits have the levels 0 to 16.
    fn features(&self, images: &Tensor) -> Result<Tensor> {
        let x = ((images.to_dtype(DType::F32)? / 8.0)? - 1.0)?;
        Ok(self.classifier.hidden(&x)?)
    }
}

/// What samples are worth.
#[derive(Debug, Clone)]
pub struct Quality {
    /// Fréchet distance to the training digits.
    pub fid: Estimate,
    /// Kernel distance to the training digits.
    pub kid: Estimate,
    /// Fidelity and diversity against as many training digits, by the five nearest.
    pub prdc: Prdc,
    /// Whether they are copies of training digits, measured by the test digits.
    pub memorisation: Memorisation,
}

/// Measures samples by the features of a network.
///
/// # Shapes
/// Images `[N, 1, 8, 8]`, levels in u8; more samples than features have entries.
///
/// # Errors
/// Those of the network and the metrics.
pub fn measure(
    network: &dyn FeatureNetwork,
    samples: &Tensor,
    training: &Tensor,
    test: &Tensor,
) -> Result<Quality> {
    let space = network.space();
    // FID streams: with more images, a loop over batches.
    let mut moments = GroupedMoments::new(network.dim(), 3)?;
    moments.push(&network.features(samples)?)?;
    let kept = |images: &Tensor| FeatureSet::new(space.clone(), &network.features(images)?);
    let (samples, training, test) = (kept(samples)?, kept(training)?, kept(test)?);
    let n = samples.len().min(training.len());
    let first = |set: &FeatureSet| set.select(&(0..n).collect::<Vec<_>>());
    let reference = FeatureGaussian::of_features(&training)?;
    Ok(Quality {
        fid: fid(&moments, space, &reference, Allow::NOTHING)?.estimate,
        kid: kid(&samples, &training)?,
        prdc: prdc(&first(&samples)?, &first(&training)?, 5)?,
        memorisation: memorisation(&samples, &training, &test, 3)?,
    })
}
