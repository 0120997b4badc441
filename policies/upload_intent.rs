//! `upload_intent`: limits on what the client declares about its upload.
//!
//! An honest client learns before the upload that its file is not allowed. The policy does not bind the upload itself:
//! a token carries no constraints, and Imgwire compares the limits of a Client Key with the declared length.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    BoxFuture, BuildContext, BuildError, ByteCount, Decision, Denial, Findings, Link, Mode,
    OnFailure, Policy, PolicyInput, PolicyKind, PolicyName, Purpose, Requirements, UploadRequest,
    Verdict, excerpt,
};

/// The media types that Imgwire supports.
const SUPPORTED: [&str; 10] = [
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/heic",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/tiff",
    "image/vnd.microsoft.icon",
    "image/webp",
];

/// The purpose and the file that the client declares are allowed. The token does not bind the client to them. At least
/// one key is required.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadIntentSettings {
    /// The allowed purposes. The request must name one of them. Default: none; the purpose is not checked.
    #[serde(default)]
    pub purposes: Option<NonEmpty<Purpose>>,
    /// The allowed media types. The request must declare the type of its file. Default: none; the type is not checked.
    #[serde(default)]
    pub mime_types: Option<NonEmpty<MimeType>>,
    /// The size of the largest file, for example `"5MB"`. The request must declare the size of its file. Default: none;
    /// the size is not checked.
    #[serde(default)]
    pub max_size: Option<ByteCount>,
}

impl PolicyKind for UploadIntentSettings {
    const NAME: &'static str = "upload_intent";
    const CAN_FAIL: bool = false;

    fn describe(&self) -> String {
        "the declared purpose and file are allowed".to_owned()
    }

    fn requirements(&self) -> Requirements {
        Requirements {
            purposes: self.purposes.clone().map(|NonEmpty(purposes)| purposes),
            ..Requirements::default()
        }
    }

    fn check(&self, findings: &mut Findings) {
        if self.purposes.is_none() && self.mime_types.is_none() && self.max_size.is_none() {
            let message = "checks nothing; add `purposes`, `mime_types` or `max_size`";
            findings.fault("", message);
        }
    }

    fn build(&self, _: BuildContext<'_>) -> Result<Arc<dyn Policy>, BuildError> {
        Ok(Arc::new(self.clone()))
    }
}

/// A list with at least one element.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<T>")]
#[schemars(with = "Vec<T>")]
pub struct NonEmpty<T>(Vec<T>);

impl<T> TryFrom<Vec<T>> for NonEmpty<T> {
    type Error = &'static str;

    fn try_from(list: Vec<T>) -> Result<Self, Self::Error> {
        if list.is_empty() {
            Err("must name at least one")
        } else {
            Ok(Self(list))
        }
    }
}

/// A media type that Imgwire supports, in lower case and without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
#[schemars(extend("examples" = ["image/png"]))]
pub struct MimeType(&'static str);

impl<'de> Deserialize<'de> for MimeType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::of(&text).ok_or_else(|| {
            let known = SUPPORTED.join("`, `");
            D::Error::custom(format!(
                "`{text}` is not a media type that Imgwire supports; write one of `{known}`"
            ))
        })
    }
}

impl MimeType {
    /// Returns the supported type that `text` names. Ignores case and parameters (RFC 9110, 8.3.1).
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let bare = text.split(';').next().unwrap_or_default().trim();
        let supported = SUPPORTED.iter();
        supported
            .copied()
            .find(|supported| supported.eq_ignore_ascii_case(bare))
            .map(Self)
    }

    /// Returns the type in lower case and without parameters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl UploadIntentSettings {
    fn judge(&self, request: &UploadRequest) -> Result<(), Denial> {
        let UploadIntentSettings {
            purposes,
            mime_types,
            max_size,
        } = self;
        if let Some(NonEmpty(purposes)) = purposes {
            match &request.purpose {
                Some(purpose) if purposes.contains(purpose) => {}
                Some(purpose) => {
                    let reason = format!("the purpose `{purpose}` is not allowed");
                    return Err(Denial::PurposeForbidden(reason));
                }
                None => {
                    let reason = "the request names no purpose".to_owned();
                    return Err(Denial::PurposeForbidden(reason));
                }
            }
        }
        let file = request.file.as_ref();
        // What is declared is judged first.
        let mut missing = None;
        if let Some(NonEmpty(allowed)) = mime_types {
            let declared = file.and_then(|file| file.mime_type.as_deref());
            let is_allowed =
                |declared| MimeType::of(declared).is_some_and(|found| allowed.contains(&found));
            match declared {
                None => missing = Some("the file's type"),
                Some(declared) if is_allowed(declared) => {}
                Some(declared) => {
                    let declared = excerpt(declared);
                    let reason = format!("files of type `{declared}` are not allowed");
                    return Err(Denial::FileTypeForbidden(reason));
                }
            }
        }
        if let Some(most) = max_size {
            let declared = file.and_then(|file| file.size);
            let most = most.bytes();
            match declared {
                Some(declared) if declared > most => {
                    return Err(Denial::FileTooLarge { declared, most });
                }
                Some(_) => {}
                None => missing = missing.or(Some("the file's size")),
            }
        }
        missing.map_or(Ok(()), |what| Err(Denial::FileRequired(what)))
    }
}

impl Policy for UploadIntentSettings {
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let checked = self.judge(input.request);
            Ok(Decision::from(match checked {
                Ok(()) => Verdict::Allow,
                Err(denial) => Verdict::Deny(denial),
            }))
        })
    }
}

/// The purpose of all requests of a route. A request that names another purpose is denied.
pub struct FixedPurpose(Purpose);

impl FixedPurpose {
    /// Returns a link of a chain that denies every purpose except `purpose`.
    ///
    /// # Panics
    ///
    /// Never: the name of the link is valid.
    #[must_use]
    pub fn link(purpose: Purpose) -> Link {
        Link {
            name: PolicyName::parse("purpose").expect("the text is a valid name"),
            kind: "purpose",
            mode: Mode::Enforce,
            on_failure: OnFailure::Deny,
            when: None,
            provides: None,
            counter_store: None,
            policy: Arc::new(Self(purpose)),
        }
    }
}

impl Policy for FixedPurpose {
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let purpose = input.request.purpose.as_ref();
            Ok(Decision::from(match purpose {
                Some(purpose) if *purpose != self.0 => {
                    Verdict::Deny(Denial::PurposeForbidden(format!(
                        "the purpose of this route is `{}`, but the request names `{purpose}`",
                        self.0
                    )))
                }
                _ => Verdict::Allow,
            }))
        })
    }
}
