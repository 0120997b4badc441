//! The limits of Imgwire itself, on routes that upload.

use policies::{
    DeclaredFile, Denial, Facts, ImgwireLimits, MAX_FILE_BYTES, MimeType, Mode, OnFailure, Pass,
    UploadRequest, Verdict,
};

use crate::helpers::{decide, request_from};

fn denial(file: Option<DeclaredFile>) -> Option<Denial> {
    let request = UploadRequest {
        file,
        ..request_from(1)
    };
    let link = ImgwireLimits::link();
    let decided = decide(&*link.policy, &request, &Facts::default(), Pass::Issue);
    match decided.unwrap().verdict {
        Verdict::Allow => None,
        Verdict::Deny(denial) => Some(denial),
        Verdict::Hold(_) => panic!("the policy holds nothing"),
    }
}

fn declared(mime_type: Option<&str>, size: Option<u64>) -> Option<DeclaredFile> {
    Some(DeclaredFile {
        name: Some("me.png".to_owned()),
        mime_type: mime_type.map(str::to_owned),
        size,
    })
}

#[test]
fn what_imgwire_does_not_support_is_denied() {
    assert_eq!(MAX_FILE_BYTES, 104_857_600);
    for (mime_type, size, expected) in [
        (Some("image/png"), Some(MAX_FILE_BYTES), None),
        (Some("IMAGE/JPEG; q=1"), Some(0), None),
        (None, None, None),
        (None, Some(MAX_FILE_BYTES + 1), Some("file_too_large")),
        (Some("image/png"), Some(u64::MAX), Some("file_too_large")),
        (Some("image/svg+xml"), None, Some("file_type_forbidden")),
        (Some(""), None, Some("file_type_forbidden")),
    ] {
        let denial = denial(declared(mime_type, size));
        let code = denial.map(|denial| denial.code());
        assert_eq!(code, expected, "{mime_type:?} {size:?}");
    }
    assert_eq!(denial(None), None);
}

#[test]
fn the_link_is_named_after_imgwire_and_always_enforced() {
    let link = ImgwireLimits::link();
    assert_eq!((link.name.as_str(), link.kind), ("imgwire", "imgwire"));
    assert_eq!(
        (link.mode, link.on_failure),
        (Mode::Enforce, OnFailure::Deny)
    );
    let denial = denial(declared(Some("text/html"), None)).unwrap();
    let expected = "Imgwire does not support files of type `text/html`";
    assert_eq!(denial.to_string(), expected);
}

#[test]
fn a_supported_type_has_one_spelling() {
    for (text, expected) in [
        ("image/png", Some("image/png")),
        (" Image/PNG ; charset=utf-8", Some("image/png")),
        ("image/jpg", None),
        ("image/", None),
        ("", None),
    ] {
        let found = MimeType::of(text).map(MimeType::as_str);
        assert_eq!(found, expected, "{text}");
    }
}
