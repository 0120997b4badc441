//! The limits of Imgwire itself, which apply to uploads that the gate creates. Imgwire enforces them for clients only.

use std::sync::Arc;

use futures_util::future::ready;

use crate::{
    BoxFuture, Decision, DeclaredFile, Denial, Link, MimeType, Mode, OnFailure, Policy,
    PolicyInput, PolicyName, Verdict, excerpt,
};

/// The size of the largest file that Imgwire stores, in bytes: 100 MiB.
pub const MAX_FILE_BYTES: u64 = 100 << 20;

/// Denies files of a type or a size that Imgwire does not support. What the request does not declare is not checked.
pub struct ImgwireLimits;

impl ImgwireLimits {
    /// Returns the link of a chain.
    ///
    /// # Panics
    ///
    /// Never: the name of the link is valid.
    #[must_use]
    pub fn link() -> Link {
        Link {
            name: PolicyName::parse("imgwire").expect("the text is a valid name"),
            kind: "imgwire",
            mode: Mode::Enforce,
            on_failure: OnFailure::Deny,
            when: None,
            provides: None,
            counter_store: None,
            policy: Arc::new(Self),
        }
    }

    fn judge(file: &DeclaredFile) -> Result<(), Denial> {
        if let Some(declared) = file.mime_type.as_deref()
            && MimeType::of(declared).is_none()
        {
            let declared = excerpt(declared);
            let reason = format!("Imgwire does not support files of type `{declared}`");
            return Err(Denial::FileTypeForbidden(reason));
        }
        match file.size {
            Some(declared) if declared > MAX_FILE_BYTES => Err(Denial::FileTooLarge {
                declared,
                most: MAX_FILE_BYTES,
            }),
            _ => Ok(()),
        }
    }
}

impl Policy for ImgwireLimits {
    fn decide<'a>(&'a self, input: PolicyInput<'a>) -> BoxFuture<'a, Decision> {
        let file = input.request.file.as_ref();
        let verdict = match file.map_or(Ok(()), Self::judge) {
            Ok(()) => Verdict::Allow,
            Err(denial) => Verdict::Deny(denial),
        };
        Box::pin(ready(Ok(Decision::from(verdict))))
    }
}
