//! Shares of requests, as people write them.

use pillion_api::model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::{Faults, Path};

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Percent(pub(super) f64);

/// JSON has no NaN.
impl Eq for Percent {}

/// Whole numbers without a decimal point, as people write them.
impl Serialize for Percent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            whole if whole.fract() == 0.0 && (0.0..=100.0).contains(&whole) => {
                serializer.serialize_u32(whole as u32)
            }
            number => serializer.serialize_f64(number),
        }
    }
}

impl From<model::Percent> for Percent {
    fn from(percent: model::Percent) -> Self {
        Self(percent.percent())
    }
}

impl Percent {
    /// It must be some; `none`: or 0.
    pub(super) fn check(self, faults: &mut Faults, at: &Path, none: bool) {
        let is_none = none && self.0 == 0.0;
        if !is_none && !(0.0001..=100.0).contains(&self.0) {
            let or = if none { "0 or " } else { "" };
            faults.add(at, format!("must be {or}between 0.0001 and 100, is {}", self.0));
        }
    }

    pub(super) fn per_million(self) -> u32 {
        (self.0 * f64::from(model::Percent::OF / 100)).round() as u32
    }
}
