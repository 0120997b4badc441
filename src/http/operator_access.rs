//! Who may use the management paths that are not open. A reload replaces it.

use secrecy::SecretString;

use crate::config::server::HostName;

pub struct OperatorAccess {
    /// If set, required.
    pub token: Option<SecretString>,
    /// Host names to accept in `Host`.
    pub hosts: Vec<HostName>,
}
