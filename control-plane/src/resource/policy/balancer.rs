//! Which of a service's endpoints gets a request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HOUR, MILLISECOND};
use crate::resource::{
    duration,
    fault::{Faults, Path},
};

/// Peak-EWMA: the less loaded of two endpoints picked at random.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// `PeakEwma`. Default: PeakEwma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Time constant of the latency average. Default: 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<String>,
}

impl LoadBalancer {
    pub(super) fn check(&self, faults: &mut Faults, at: &Path) {
        if let Some(other) = self.r#type.as_deref().filter(|it| *it != "PeakEwma") {
            faults.add(&at.field("type"), format!("must be \"PeakEwma\", is {other:?}"));
        }
        duration::check(faults, &at.field("decay"), self.decay.as_ref(), 10 * MILLISECOND, HOUR);
    }
}
