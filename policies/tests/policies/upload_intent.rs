//! `upload_intent`: the declared purpose and file are allowed.

use std::sync::Arc;

use policies::{
    DeclaredFile, Denial, Facts, FixedPurpose, Mode, OnFailure, Pass, Policy, PolicyKind as _,
    Purpose, UploadIntentSettings, UploadRequest, Verdict,
};

use crate::helpers::{
    StoppedClock, TestPorts, build, decide, denial_code, faults_of, request_from, settings,
};

/// The denial of a request by a policy with these settings.
fn denial(table: &str, request: &UploadRequest) -> Option<Denial> {
    let settings: UploadIntentSettings = settings(table);
    let clock = Arc::new(StoppedClock::default());
    let policy = build(&settings, &TestPorts::default(), clock);
    let decided = decide(&*policy, request, &Facts::default(), Pass::Issue);
    match decided.unwrap().verdict {
        Verdict::Deny(denial) => Some(denial),
        Verdict::Allow => None,
        Verdict::Hold(_) => panic!("the policy holds nothing"),
    }
}

fn code(table: &str, request: &UploadRequest) -> Option<&'static str> {
    denial(table, request).map(|denial| denial.code())
}

fn request_with_purpose(purpose: Option<&str>) -> UploadRequest {
    UploadRequest {
        purpose: purpose.map(|purpose| Purpose::parse(purpose).unwrap()),
        ..request_from(1)
    }
}

fn request_with_file(mime_type: Option<&str>, size: Option<u64>) -> UploadRequest {
    UploadRequest {
        file: Some(DeclaredFile {
            name: None,
            mime_type: mime_type.map(str::to_owned),
            size,
        }),
        ..request_from(1)
    }
}

#[test]
fn a_purpose_must_be_named_and_listed() {
    let table = "purposes = ['avatar', 'banner']";
    for (purpose, expected) in [
        (Some("avatar"), None),
        (Some("banner"), None),
        (Some("Avatar"), Some("purpose_forbidden")),
        (Some("logo"), Some("purpose_forbidden")),
        (None, Some("purpose_forbidden")),
    ] {
        assert_eq!(
            code(table, &request_with_purpose(purpose)),
            expected,
            "{purpose:?}"
        );
    }
}

#[test]
fn a_media_type_must_be_declared_and_listed() {
    let table = "mime_types = ['image/png', 'IMAGE/WebP']";
    for (mime_type, expected) in [
        ("image/png", None),
        ("Image/PNG", None),
        ("image/webp; q=1", None),
        (" image/png ;x", None),
        ("image/gif", Some("file_type_forbidden")),
        ("text/html", Some("file_type_forbidden")),
        ("", Some("file_type_forbidden")),
    ] {
        let request = request_with_file(Some(mime_type), None);
        assert_eq!(code(table, &request), expected, "{mime_type}");
    }
    let required = Some("file_required");
    assert_eq!(code(table, &request_with_file(None, Some(1))), required);
    assert_eq!(code(table, &request_from(1)), required);
}

#[test]
fn a_size_must_be_declared_and_at_most_the_largest() {
    let table = "max_size = '2KiB'";
    for size in [0, 1, 2048] {
        assert_eq!(denial(table, &request_with_file(None, Some(size))), None);
    }
    let too_large = Denial::FileTooLarge {
        declared: 2049,
        most: 2048,
    };
    assert_eq!(
        denial(table, &request_with_file(None, Some(2049))),
        Some(too_large)
    );
    let required = Some("file_required");
    assert_eq!(
        code(table, &request_with_file(Some("image/png"), None)),
        required
    );
    assert_eq!(code(table, &request_from(1)), required);
}

#[test]
fn what_the_settings_leave_out_is_not_checked() {
    let request = request_with_purpose(Some("avatar"));
    assert_eq!(code("purposes = ['avatar']", &request), None);
    let request = request_with_file(Some("text/html"), Some(1));
    assert_eq!(code("max_size = '1MB'", &request), None);
    let request = request_with_file(Some("image/png"), Some(u64::MAX));
    assert_eq!(code("mime_types = ['image/png']", &request), None);
}

#[test]
fn settings_check_something_and_have_no_empty_list() {
    let nothing: UploadIntentSettings = settings("");
    assert_eq!(faults_of(&nothing).len(), 1);
    for table in [
        "purposes = ['a']",
        "mime_types = ['image/png']",
        "max_size = '1MB'",
    ] {
        assert!(
            faults_of(&settings::<UploadIntentSettings>(table)).is_empty(),
            "{table}"
        );
    }
    for table in [
        "purposes = []",
        "mime_types = []",
        "mime_types = ['image/svg+xml']",
        "max_size = '0'",
    ] {
        assert!(
            toml::from_str::<UploadIntentSettings>(table).is_err(),
            "{table}"
        );
    }
}

#[test]
fn only_a_list_of_purposes_bounds_the_purposes() {
    for (table, bounds) in [("purposes = ['a']", true), ("max_size = '1MB'", false)] {
        let settings: UploadIntentSettings = settings(table);
        assert_eq!(settings.requirements().purposes.is_some(), bounds);
        assert!(settings.describe().contains("purpose"));
    }
}

#[test]
fn a_route_with_a_purpose_denies_every_other_one() {
    let link = FixedPurpose::link(Purpose::parse("avatar").unwrap());
    assert_eq!(
        (link.mode, link.on_failure),
        (Mode::Enforce, OnFailure::Deny)
    );
    let policy: &dyn Policy = &*link.policy;
    for (purpose, expected) in [
        (Some("avatar"), None),
        (None, None),
        (Some("banner"), Some("purpose_forbidden")),
    ] {
        let request = request_with_purpose(purpose);
        let decided = decide(policy, &request, &Facts::default(), Pass::Issue);
        assert_eq!(
            denial_code(&decided.unwrap().verdict),
            expected,
            "{purpose:?}"
        );
    }
}
