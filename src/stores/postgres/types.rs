//! The values of membership queries: identifiers and roles of any type that apps have.

use bytes::BytesMut;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::stores::fault::StoreFault;

/// A parameter that the server parses like a literal, because an identifier may be a `text`, a `uuid` or a `bigint`.
#[derive(Debug)]
pub(super) struct Literal<'a>(pub(super) &'a str);

impl ToSql for Literal<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A column of any text type: `text`, `varchar`, an enum, or a domain over one.
pub(super) struct Text(pub(super) String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(str::from_utf8(raw)?.to_owned()))
    }

    fn accepts(column: &Type) -> bool {
        match column.kind() {
            Kind::Enum(_) => true,
            Kind::Domain(of) => Self::accepts(of),
            _ => {
                matches!(
                    *column,
                    Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN
                ) || column.name() == "citext"
            }
        }
    }
}

/// A column of identifiers: texts, `uuid` in canonical form, or integers in decimal digits.
pub(super) struct Id(pub(super) String);

impl<'a> FromSql<'a> for Id {
    fn from_sql(
        column: &Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(match (column.kind(), column) {
            (Kind::Domain(of), _) => return Self::from_sql(of, raw),
            (_, &Type::UUID) => Uuid::from_slice(raw)?.to_string(),
            (_, &Type::INT2) => i16::from_sql(column, raw)?.to_string(),
            (_, &Type::INT4) => i32::from_sql(column, raw)?.to_string(),
            (_, &Type::INT8) => i64::from_sql(column, raw)?.to_string(),
            _ => Text::from_sql(column, raw)?.0,
        }))
    }

    fn accepts(column: &Type) -> bool {
        match column.kind() {
            Kind::Domain(of) => Self::accepts(of),
            _ => {
                matches!(*column, Type::UUID | Type::INT2 | Type::INT4 | Type::INT8)
                    || Text::accepts(column)
            }
        }
    }
}

/// Checks the types of the first two columns of a query. The second may be missing.
pub(super) fn check_columns(
    role: Option<&Type>,
    workspace: Option<&Type>,
) -> Result<(), StoreFault> {
    match role {
        Some(role) if <Text as FromSql>::accepts(role) => {}
        role => {
            return Err(StoreFault::invalid_role(
                role.map_or("no column", Type::name),
            ));
        }
    }
    match workspace {
        Some(id) if !<Id as FromSql>::accepts(id) => Err(StoreFault::invalid_id(id.name())),
        _ => Ok(()),
    }
}
