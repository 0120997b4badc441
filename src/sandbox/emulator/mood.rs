//! The moods of the emulator, which the playground switches between.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Emulator,
    faults::{Endpoint, Misbehaviour},
    scenario::{Billing, SERVER_API_KEY, Scenario, ServerKey},
};

/// Shorter than the default timeout of the gate.
const SLOW: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mood {
    Up,
    Slow,
    Down,
    /// Never responds.
    Silent,
    Reset,
    KeyRefused,
    Unpaid,
    /// The storage of the plan is used up.
    Full,
    /// Uploads end in QUARANTINE.
    Quarantine,
}

impl Emulator {
    /// The moods that apply. A shell can combine them.
    pub(crate) fn moods(&self) -> Vec<Mood> {
        let memory = self.state.lock();
        let fault = match memory.faults.at(Endpoint::Token) {
            None => None,
            Some(Misbehaviour::Slow(_) | Misbehaviour::Trickle(_)) => Some(Mood::Slow),
            Some(Misbehaviour::Hang) => Some(Mood::Silent),
            Some(Misbehaviour::Reset | Misbehaviour::Close | Misbehaviour::BreakOff) => {
                Some(Mood::Reset)
            }
            Some(Misbehaviour::Status(..) | Misbehaviour::Refuse(_) | Misbehaviour::Body(_)) => {
                Some(Mood::Down)
            }
        };
        let Scenario {
            billing,
            quarantine,
            server_keys,
            ..
        } = &memory.scenario;
        let mut keys = server_keys.iter();
        let has_key = keys.any(|key| key.key == SERVER_API_KEY && !key.revoked);
        let plan = match billing {
            Billing::Active => None,
            Billing::Unpaid => Some(Mood::Unpaid),
            Billing::StorageUsedUp | Billing::UploadsUsedUp => Some(Mood::Full),
        };
        let moods = [
            fault,
            (!has_key).then_some(Mood::KeyRefused),
            plan,
            quarantine.then_some(Mood::Quarantine),
        ];
        let moods: Vec<_> = moods.into_iter().flatten().collect();
        if moods.is_empty() {
            vec![Mood::Up]
        } else {
            moods
        }
    }

    /// Replaces all moods by one.
    pub(crate) fn set_mood(&self, mood: Mood) {
        let mut memory = self.state.lock();
        let scenario = &mut memory.scenario;
        scenario.billing = match mood {
            Mood::Unpaid => Billing::Unpaid,
            Mood::Full => Billing::StorageUsedUp,
            _ => Billing::Active,
        };
        scenario.quarantine = mood == Mood::Quarantine;
        let keys = &mut scenario.server_keys;
        if !keys.iter().any(|key| key.key == SERVER_API_KEY) {
            keys.push(ServerKey::new(SERVER_API_KEY));
        }
        for key in keys.iter_mut().filter(|key| key.key == SERVER_API_KEY) {
            key.revoked = mood == Mood::KeyRefused;
        }
        let fault = match mood {
            Mood::Slow => Some(Misbehaviour::Slow(SLOW)),
            Mood::Down => Some(Misbehaviour::Status(503, None)),
            Mood::Silent => Some(Misbehaviour::Hang),
            Mood::Reset => Some(Misbehaviour::Reset),
            Mood::Up | Mood::KeyRefused | Mood::Unpaid | Mood::Full | Mood::Quarantine => None,
        };
        for endpoint in [Endpoint::Token, Endpoint::Upload] {
            memory.faults.set(endpoint, fault.clone());
        }
    }
}
