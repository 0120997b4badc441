//! The macros that declare metrics.

use actix_web::http::StatusCode;
use policies::{IdentityName, PolicyName, RoutePath, StoreName};
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::telemetry::point::PointState;

/// A type for the values of a label: a string constant, or a name from the config. Types with data from clients do not
/// implement it, so that clients cannot add time series.
pub(super) trait LabelValue {
    fn text(&self) -> &str;
}

impl LabelValue for &'static str {
    fn text(&self) -> &str {
        self
    }
}

impl LabelValue for StatusCode {
    fn text(&self) -> &str {
        self.as_str()
    }
}

impl<T: LabelValue> LabelValue for Option<T> {
    fn text(&self) -> &str {
        self.as_ref().map_or("", T::text)
    }
}

macro_rules! names_are_label_values {
    ($($name:ty),+) => {
        $(impl LabelValue for $name {
            fn text(&self) -> &str {
                self.as_str()
            }
        })+
    };
}

names_are_label_values!(IdentityName, PointState, PolicyName, RoutePath, StoreName);

/// Declares the values of a label.
macro_rules! label_values {
    ($(#[$meta:meta])* enum $name:ident { $($value:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name {
            $($value,)+
        }

        impl LabelValue for $name {
            fn text(&self) -> &str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }
    };
}

/// Declares all metrics, in blocks of one prefix each. A declaration is a help text, a name, a type, labels if the
/// metric has any, and an initial value if `Default` does not give it.
///
/// Each metric becomes a method. The method takes a value for each label, and returns the metric to record in. With
/// labels, the returned value holds a read lock on all metrics of that name, so record at once and drop it.
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        pub struct $name:ident;
        $(
            $prefix:literal {
                $(
                    #[doc = $help:literal]
                    $metric:ident: $type:ident $({ $($label:ident: $value:ty),+ })? $(= $new:expr)?;
                )+
            }
        )+
        info {
            #[doc = $info_help:literal]
            $info:ident: $info_labels:expr;
        }
    ) => {
        $($($(
            mod $metric {
                use super::*;

                #[derive(Clone, Debug, PartialEq, Eq, Hash)]
                pub(super) struct Labels {
                    $(pub(super) $label: $value,)+
                }

                impl EncodeLabelSet for Labels {
                    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
                        $((stringify!($label), self.$label.text()).encode(encoder.encode_label())?;)+
                        Ok(())
                    }
                }
            }
        )?)+)+

        $(#[$meta])*
        pub struct $name {
            registry: Registry,
            $($($metric: by_labels!(type $type $($metric $($label)+)?),)+)+
        }

        impl Default for $name {
            fn default() -> Self {
                let mut registry = Registry::default();
                $($(
                    let new: fn() -> $type = || by_labels!(value $($new)?);
                    let $metric = by_labels!(new new $($($label)+)?);
                    let metric = Clone::clone(&$metric);
                    register(&mut registry, concat!($prefix, stringify!($metric)), $help, metric);
                )+)+
                register(&mut registry, stringify!($info), $info_help, Info::new($info_labels));
                Self { registry, $($($metric),+),+ }
            }
        }

        impl $name {
            /// The names of all metrics, without the suffixes that their types add.
            pub const NAMES: &[&str] = &[
                $($(concat!($prefix, stringify!($metric)),)+)+
                stringify!($info),
            ];

            $($(by_labels!(fn $help $metric $type $($($label: $value),+)?);)+)+
        }
    };
}

/// Chooses between a metric without labels and a family of metrics.
macro_rules! by_labels {
    (type $type:ident) => { $type };
    (type $type:ident $metric:ident $($label:ident)+) => { Family<$metric::Labels, $type> };
    (value) => { Default::default() };
    (value $value:expr) => { $value };
    (new $new:ident) => { $new() };
    (new $new:ident $($label:ident)+) => { Family::new_with_constructor($new) };
    (fn $help:literal $metric:ident $type:ident) => {
        #[doc = $help]
        #[must_use = "this records nothing yet"]
        pub(crate) fn $metric(&self) -> &$type {
            &self.$metric
        }
    };
    (fn $help:literal $metric:ident $type:ident $($label:ident: $value:ty),+) => {
        #[doc = $help]
        #[must_use = "this records nothing yet"]
        pub(crate) fn $metric(&self, $($label: $value),+) -> impl Deref<Target = $type> {
            self.$metric.get_or_create(&$metric::Labels { $($label),+ })
        }
    };
}

pub(super) use {by_labels, label_values, metrics};

/// Registers a metric. Its unit is the suffix of its name.
pub(super) fn register(registry: &mut Registry, name: &str, help: &str, metric: impl Metric) {
    let help = help.trim_start();
    match name.strip_suffix("_seconds") {
        Some(name) => registry.register_with_unit(name, help, Unit::Seconds, metric),
        None => registry.register(name, help, metric),
    }
}
