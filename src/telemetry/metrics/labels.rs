//! The labels of the metrics: each value comes from the config or from the code.

use std::fmt;

use policies::{IdentityName, PolicyName, RoutePath, StoreName};
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DecisionLabels {
    pub(super) route: RoutePath,
    pub(super) outcome: &'static str,
    pub(super) policy: Option<PolicyName>,
    pub(super) code: &'static str,
}

impl EncodeLabelSet for DecisionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let policy = self.policy.as_ref().map_or("", |policy| policy.as_str());
        ("route", self.route.as_str()).encode(encoder.encode_label())?;
        ("outcome", self.outcome).encode(encoder.encode_label())?;
        ("policy", policy).encode(encoder.encode_label())?;
        ("code", self.code).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CreationLabels {
    pub(super) result: &'static str,
}

impl EncodeLabelSet for CreationLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("result", self.result).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct IdentityCallLabels {
    pub(super) identity: IdentityName,
    pub(super) result: &'static str,
}

impl EncodeLabelSet for IdentityCallLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("identity", self.identity.as_str()).encode(encoder.encode_label())?;
        ("result", self.result).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PolicyCallLabels {
    pub(super) policy: PolicyName,
    pub(super) result: &'static str,
}

impl EncodeLabelSet for PolicyCallLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("policy", self.policy.as_str()).encode(encoder.encode_label())?;
        ("result", self.result).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReloadLabels {
    pub(super) result: &'static str,
}

impl EncodeLabelSet for ReloadLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("result", self.result).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct IdentityLabels {
    pub(super) identity: IdentityName,
}

impl EncodeLabelSet for IdentityLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("identity", self.identity.as_str()).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StoreLabels {
    pub(super) store: StoreName,
}

impl EncodeLabelSet for StoreLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("store", self.store.as_str()).encode(encoder.encode_label())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StoreResultLabels {
    pub(super) store: StoreName,
    pub(super) operation: &'static str,
    pub(super) result: &'static str,
}

impl EncodeLabelSet for StoreResultLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        ("store", self.store.as_str()).encode(encoder.encode_label())?;
        ("operation", self.operation).encode(encoder.encode_label())?;
        ("result", self.result).encode(encoder.encode_label())
    }
}

/// What becomes of a token that is made ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolEvent {
    /// It waits.
    Made,
    /// A client has it.
    HandedOut,
    /// It grew too old, or was one too many.
    Discarded,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolLabels {
    pub(super) event: PoolEvent,
}

impl EncodeLabelSet for PoolLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        let event = match self.event {
            PoolEvent::Made => "made",
            PoolEvent::HandedOut => "handed_out",
            PoolEvent::Discarded => "discarded",
        };
        ("event", event).encode(encoder.encode_label())
    }
}
