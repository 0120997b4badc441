//! Denials: the stable codes that clients see, and the classes that decide the status.

use std::time::Duration;

use policies::{
    Denial,
    DenialClass::{Forbidden, Limited, Unauthenticated},
    IdentityName, ReachedLimit,
};

const SECOND: Duration = Duration::from_secs(1);

fn by_identity(denial: Denial) -> Denial {
    Denial::Identity {
        identity: Some(IdentityName::parse("app").unwrap()),
        denial: Box::new(denial),
        token: None,
    }
}

fn reached() -> Box<ReachedLimit> {
    ReachedLimit::rate(30, 10, Duration::from_secs(60), "user=user_1".to_owned())
}

fn by_server() -> Denial {
    Denial::ServerLimited {
        key: "key",
        retry_after: SECOND,
        reached: reached(),
    }
}

fn by_rate_limit() -> Denial {
    Denial::RateLimited {
        retry_after: SECOND,
        reached: reached(),
    }
}

#[test]
fn each_denial_has_a_stable_code_and_a_class() {
    let text = || "reason".to_owned();
    let too_large = Denial::FileTooLarge {
        declared: 2,
        most: 1,
    };
    let used_up = Denial::QuotaExhausted {
        note: None,
        retry_after: SECOND,
        reached: reached(),
    };
    for (denial, code, class) in [
        (Denial::NotSignedIn, "not_signed_in", Unauthenticated),
        (Denial::SignedOut(text()), "not_signed_in", Unauthenticated),
        (
            Denial::InvalidCredentials(text()),
            "invalid_credentials",
            Unauthenticated,
        ),
        (
            Denial::CredentialsExpired(SECOND),
            "credentials_expired",
            Unauthenticated,
        ),
        (Denial::CrossSite(text()), "cross_site", Forbidden),
        (
            Denial::WorkspaceRequired(text()),
            "workspace_required",
            Forbidden,
        ),
        (
            Denial::WorkspaceForbidden(text()),
            "workspace_forbidden",
            Forbidden,
        ),
        (
            Denial::PurposeForbidden(text()),
            "purpose_forbidden",
            Forbidden,
        ),
        (Denial::FileRequired("size"), "file_required", Forbidden),
        (
            Denial::FileTypeForbidden(text()),
            "file_type_forbidden",
            Forbidden,
        ),
        (too_large, "file_too_large", Forbidden),
        (Denial::RuleForbidden(text()), "rule_forbidden", Forbidden),
        (by_rate_limit(), "rate_limited", Limited),
        (by_server(), "rate_limited", Limited),
        (used_up, "quota_exhausted", Limited),
    ] {
        let retry_after = (class == Limited).then_some(SECOND);
        for denial in [denial.clone(), by_identity(denial)] {
            assert_eq!((denial.code(), denial.class()), (code, class), "{denial}");
            assert_eq!(denial.retry_after(), retry_after, "{denial}");
            assert!(!denial.to_string().is_empty());
        }
    }
}

#[test]
fn a_denial_of_an_identity_names_it_and_gives_its_reason() {
    let denial = by_identity(Denial::CrossSite("elsewhere".to_owned()));
    assert_eq!(denial.identity().map(IdentityName::as_str), Some("app"));
    let text = denial.to_string();
    assert!(
        text.contains("`app`") && text.contains("elsewhere"),
        "{text}"
    );
    assert_eq!(Denial::NotSignedIn.identity(), None);
}

#[test]
fn an_identity_that_knows_no_user_does_not_say_that_the_credential_is_missing() {
    let missing = Denial::NotSignedIn.to_string();
    let unknown = by_identity(Denial::NotSignedIn).to_string();
    assert!(!unknown.contains(&missing), "{unknown}");
}

#[test]
fn limits_of_the_server_and_of_policies_are_distinguished() {
    assert!(by_server().is_of_server() && by_identity(by_server()).is_of_server());
    assert!(!by_rate_limit().is_of_server() && !by_identity(by_rate_limit()).is_of_server());
}
