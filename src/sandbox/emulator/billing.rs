//! What the state of the plan allows.

use super::{
    errors::ApiError,
    scenario::{Billing, ErrorType, Scenario},
};

impl Scenario {
    pub(super) fn check_plan_for_token(&self) -> Result<(), ApiError> {
        match self.billing {
            Billing::StorageUsedUp | Billing::UploadsUsedUp
                if !self.undocumented.tokens_check_capacity =>
            {
                Ok(())
            }
            _ => self.check_plan_for_upload(),
        }
    }

    pub(super) fn check_plan_for_upload(&self) -> Result<(), ApiError> {
        let detail = match self.billing {
            Billing::Active => return Ok(()),
            Billing::Unpaid => "The subscription is not active",
            Billing::StorageUsedUp => "The storage capacity of the plan is used up",
            Billing::UploadsUsedUp => "The upload capacity of the plan is used up",
        };
        Err(self.error(ErrorType::PaymentRequired, detail))
    }
}
