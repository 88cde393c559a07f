//! What goes into a statement and what comes out of a row: text, whole numbers, bytes. Never null.

use postgres::types::{IsNull, Type};
use rusqlite::types::ValueRef;

use super::{Error, Result};
use crate::kernel::{Digest, Entity, Id, Timestamp};

/// One parameter of a statement.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    /// TEXT
    Text(&'a str),
    /// BIGINT
    Int(i64),
    /// BLOB or BYTEA
    Bytes(&'a [u8]),
}

/// What can be a parameter.
pub trait ToParam {
    /// The value as the database takes it.
    fn to_param(&self) -> Param<'_>;
}

impl ToParam for str {
    fn to_param(&self) -> Param<'_> {
        Param::Text(self)
    }
}
impl ToParam for String {
    fn to_param(&self) -> Param<'_> {
        Param::Text(self)
    }
}
impl ToParam for i64 {
    fn to_param(&self) -> Param<'_> {
        Param::Int(*self)
    }
}
impl ToParam for Timestamp {
    fn to_param(&self) -> Param<'_> {
        Param::Int(self.micros())
    }
}
impl<E: Entity> ToParam for Id<E> {
    fn to_param(&self) -> Param<'_> {
        Param::Bytes(self.as_bytes())
    }
}
impl ToParam for Digest {
    fn to_param(&self) -> Param<'_> {
        Param::Bytes(self.as_bytes())
    }
}
impl ToParam for [u8] {
    fn to_param(&self) -> Param<'_> {
        Param::Bytes(self)
    }
}
impl<const N: usize> ToParam for [u8; N] {
    fn to_param(&self) -> Param<'_> {
        Param::Bytes(self)
    }
}
impl ToParam for Vec<u8> {
    fn to_param(&self) -> Param<'_> {
        Param::Bytes(self)
    }
}
impl<T: ToParam + ?Sized> ToParam for &T {
    fn to_param(&self) -> Param<'_> {
        (**self).to_param()
    }
}

impl postgres::types::ToSql for Param<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut bytes::BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match (self, ty) {
            (Self::Text(text), &Type::TEXT) => text.to_sql(ty, out),
            (Self::Int(number), &Type::INT8) => number.to_sql(ty, out),
            (Self::Bytes(bytes), &Type::BYTEA) => bytes.to_sql(ty, out),
            _ => Err(format!("{self:?} given where the database wants {ty}").into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    postgres::types::to_sql_checked!();
}

/// One row of an answer.
pub struct Row<'r>(Inner<'r>);

enum Inner<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r postgres::Row),
}

/// One value of a row.
pub enum Column<'r> {
    /// From SQLite.
    Sqlite(ValueRef<'r>),
    /// From PostgreSQL, with its place.
    Postgres(&'r postgres::Row, usize),
}

impl<'r> Row<'r> {
    pub(super) fn sqlite(row: &'r rusqlite::Row<'r>) -> Self {
        Self(Inner::Sqlite(row))
    }

    pub(super) fn postgres(row: &'r postgres::Row) -> Self {
        Self(Inner::Postgres(row))
    }

    /// The column at `index`, counted from 0.
    ///
    /// # Errors
    /// [`Error::Bug`] when there is none or it is of another type.
    pub fn get<T: FromColumn>(&self, index: usize) -> Result<T> {
        let column = match self.0 {
            Inner::Sqlite(row) => {
                Column::Sqlite(row.get_ref(index).map_err(|_| wrong("a column that is there"))?)
            }
            Inner::Postgres(row) => Column::Postgres(row, index),
        };
        T::from_column(&column)
    }

    /// Refuses a row of another width: a statement and the type that reads it have grown apart.
    ///
    /// # Errors
    /// [`Error::Bug`].
    pub fn expect_width(&self, width: usize) -> Result<()> {
        let has = match self.0 {
            Inner::Sqlite(row) => row.as_ref().column_count(),
            Inner::Postgres(row) => row.len(),
        };
        if has == width {
            Ok(())
        } else {
            Err(Error::Bug(format!("a row of {has} columns read as one of {width}")))
        }
    }
}

fn wrong(wanted: &str) -> Error {
    Error::Bug(format!("the row does not hold {wanted}"))
}

impl<'r> Column<'r> {
    /// The text in it.
    ///
    /// # Errors
    /// [`Error::Bug`] when it holds something else; the same for the two below.
    pub fn text(&self) -> Result<&'r str> {
        match self {
            Self::Sqlite(value) => value.as_str().map_err(|_| wrong("text")),
            Self::Postgres(row, at) => row.try_get(*at).map_err(|_| wrong("text")),
        }
    }

    /// The whole number in it.
    ///
    /// # Errors
    /// As [`Column::text`].
    pub fn int(&self) -> Result<i64> {
        match self {
            Self::Sqlite(value) => value.as_i64().map_err(|_| wrong("a number")),
            Self::Postgres(row, at) => row.try_get(*at).map_err(|_| wrong("a number")),
        }
    }

    /// The bytes in it.
    ///
    /// # Errors
    /// As [`Column::text`].
    pub fn bytes(&self) -> Result<&'r [u8]> {
        match self {
            Self::Sqlite(value) => value.as_blob().map_err(|_| wrong("bytes")),
            Self::Postgres(row, at) => row.try_get(*at).map_err(|_| wrong("bytes")),
        }
    }
}

/// What can be read from a column.
pub trait FromColumn: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Bug`] when the column holds something else.
    fn from_column(column: &Column<'_>) -> Result<Self>;
}

impl FromColumn for String {
    fn from_column(column: &Column<'_>) -> Result<Self> {
        column.text().map(str::to_owned)
    }
}
impl FromColumn for i64 {
    fn from_column(column: &Column<'_>) -> Result<Self> {
        column.int()
    }
}
/// A yes or no that a statement computes (`CASE WHEN … THEN 1 ELSE 0 END`); no table stores one.
impl FromColumn for bool {
    fn from_column(column: &Column<'_>) -> Result<Self> {
        column.int().map(|n| n != 0)
    }
}
impl FromColumn for Timestamp {
    fn from_column(column: &Column<'_>) -> Result<Self> {
        column.int().map(Self::from_micros)
    }
}
impl FromColumn for Vec<u8> {
    fn from_column(column: &Column<'_>) -> Result<Self> {
        column.bytes().map(<[u8]>::to_vec)
    }
}
impl FromColumn for Digest {
    fn from_column(column: &Column<'_>) -> Result<Self> {
        column.bytes()?.try_into().map(Self::from_bytes).map_err(|_| wrong("32 bytes"))
    }
}
impl<E: Entity> FromColumn for Id<E> {
    fn from_column(column: &Column<'_>) -> Result<Self> {
        Self::from_slice(column.bytes()?).map_err(|_| wrong("an id"))
    }
}

/// What can be read from a whole row.
pub trait FromRow: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Bug`] when the row has another shape.
    fn from_row(row: &Row<'_>) -> Result<Self>;
}

macro_rules! tuples {
    ($($width:literal: $($name:ident $at:tt),+;)+) => {$(
        impl<$($name: FromColumn),+> FromRow for ($($name,)+) {
            fn from_row(row: &Row<'_>) -> Result<Self> {
                row.expect_width($width)?;
                Ok(($(row.get::<$name>($at)?,)+))
            }
        }
    )+};
}

tuples! {
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
}

/// Declares a struct that is read from a row, its fields in the order of the statement's columns.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $ty:ty),+ $(,)? }) => {
        $(#[$meta])* $vis struct $name { $($(#[$field_meta])* $field_vis $field: $ty),+ }
        impl $crate::db::FromRow for $name {
            fn from_row(row: &$crate::db::Row<'_>) -> $crate::db::Result<Self> {
                let width = [$(stringify!($field)),+].len();
                row.expect_width(width)?;
                let mut at = 0..width;
                Ok(Self { $($field: row.get::<$ty>(at.next().unwrap_or(width))?),+ })
            }
        }
    };
}
