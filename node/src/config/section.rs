//! What makes a struct a section of the configuration: one table gives its fields, their
//! defaults, their bounds and the text of the example file.

use super::value::Input;

/// A configuration key as the example file shows it.
pub(super) struct Key {
    pub name: &'static str,
    /// Lines of explanation, each with its leading space.
    pub doc: &'static [&'static str],
    /// The present value as TOML.
    pub value: String,
    /// It must not be given where others see it.
    pub secret: bool,
}

pub(super) trait Section {
    fn keys(&self) -> Vec<Key>;

    /// Sets `key`; `None`: the section has no such key.
    fn set(&mut self, key: &str, input: &Input<'_>) -> Option<Result<(), String>>;
}

/// Declares a section: `field: type = default, check;`. A check takes the value by reference and
/// says what is wrong with it.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[doc = $doc:literal])+ $field:ident : $ty:ty = $default:expr $(, $check:expr)? ; )+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $( $(#[doc = $doc])+ pub $field: $ty, )+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::config::section::Section for $name {
            fn keys(&self) -> Vec<$crate::config::section::Key> {
                vec![$( $crate::config::section::Key {
                    name: stringify!($field),
                    doc: &[$($doc),+],
                    value: $crate::config::value::Setting::show(&self.$field),
                    secret: <$ty as $crate::config::value::Setting>::SECRET,
                } ),+]
            }

            fn set(
                &mut self,
                key: &str,
                input: &$crate::config::value::Input<'_>,
            ) -> Option<Result<(), String>> {
                match key {
                    $( stringify!($field) => Some(
                        <$ty as $crate::config::value::Setting>::read(input).and_then(|value| {
                            $( ($check)(&value)?; )?
                            self.$field = value;
                            Ok(())
                        }),
                    ), )+
                    _ => None,
                }
            }
        }
    };
}
pub(super) use section;
