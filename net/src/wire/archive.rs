//! The door to archived bytes: the only file that reads or writes rkyv archives.
//!
//! Data path 1/9 and 9/9.
//!
//! Archives are little endian and unaligned (rkyv feature `unaligned`): they may stand at any offset of any buffer. A
//! root stands at the end of its bytes, so the slice given to [`access`] must be exact; frames see to that.
//!
//! Invariants: bytes are always checked before they are looked at; serializing appends to the caller's buffer and, for
//! lists of up to [`SCRATCH_ITEMS`] items, allocates nothing else.
//!
//! It does not know any message.

use rkyv::{
    Archive, Archived, Deserialize, Place, Portable, Serialize,
    api::low::{LowDeserializer, LowSerializer, LowValidator},
    bytecheck::CheckBytes,
    rancor::{Failure, Fallible},
    ser::{Allocator, Serializer, Writer, allocator::ArenaHandle, allocator::SubAllocator},
    string::{ArchivedString, StringResolver},
    util::with_arena,
    vec::{ArchivedVec, VecResolver},
    with::{ArchiveWith, SerializeWith},
};
use std::mem::MaybeUninit;

/// The bytes are not an archive of the type that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are not a valid {type_name}; run the same release on both sides")]
pub struct WireError {
    /// Name of the message.
    pub type_name: &'static str,
    /// How many bytes were looked at.
    pub bytes: usize,
}

impl WireError {
    /// The same bytes will never be valid.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// The connection they came from must be closed.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        true
    }
}

/// Looks at archived bytes in place, after checking all of them that can be reached from the root.
#[inline]
pub(super) fn access<'a, T>(bytes: &'a [u8], type_name: &'static str) -> Result<&'a T, WireError>
where
    T: Portable + for<'b> CheckBytes<LowValidator<'b, Failure>>,
{
    rkyv::api::low::access::<T, Failure>(bytes).map_err(|_| WireError { type_name, bytes: bytes.len() })
}

/// Refuses an archive whose lists or texts are longer than a message of its kind may have.
pub(super) fn check_bounds(is_bounded: bool, bytes: &[u8], type_name: &'static str) -> Result<(), WireError> {
    if is_bounded { Ok(()) } else { Err(WireError { type_name, bytes: bytes.len() }) }
}

/// An owned or `Copy` value of checked archived bytes. Not for the data path, except where the value is `Copy`.
#[inline]
pub(super) fn to_native<T>(archived: &Archived<T>, type_name: &'static str) -> Result<T, WireError>
where
    T: Archive,
    Archived<T>: Deserialize<T, LowDeserializer<Failure>>,
{
    rkyv::api::low::deserialize::<T, Failure>(archived).map_err(|_| WireError { type_name, bytes: 0 })
}

/// Lists up to this long serialize with scratch space on the stack.
pub(super) const SCRATCH_ITEMS: usize = 4;
const SCRATCH_BYTES: usize = 256;

/// Serializer with scratch space on the stack.
pub(super) type StackSerializer<'a, 'b> = LowSerializer<&'a mut Vec<u8>, SubAllocator<'b>, Failure>;
/// Serializer with scratch space in the thread's arena.
pub(super) type ArenaSerializer<'a, 'b> = LowSerializer<&'a mut Vec<u8>, ArenaHandle<'b>, Failure>;

/// What can be appended to a buffer as an archive.
pub(super) trait Encode:
    for<'a, 'b> Serialize<StackSerializer<'a, 'b>> + for<'a, 'b> Serialize<ArenaSerializer<'a, 'b>>
{
}
impl<T> Encode for T where
    T: for<'a, 'b> Serialize<StackSerializer<'a, 'b>> + for<'a, 'b> Serialize<ArenaSerializer<'a, 'b>>
{
}

/// Appends the archive of `value`; `items` is the length of its longest list of non-bytes.
///
/// # Panics
/// When a list is longer than 2 GiB: the callers are bound by the limits of a frame, far below.
#[inline]
pub(super) fn append<T: Encode>(out: &mut Vec<u8>, value: &T, items: usize) {
    if items <= SCRATCH_ITEMS {
        let mut scratch = [MaybeUninit::<u8>::uninit(); SCRATCH_BYTES];
        let mut serializer = Serializer::new(out, SubAllocator::new(&mut scratch), ());
        rkyv::api::serialize_using::<_, Failure>(value, &mut serializer).expect("scratch holds the resolvers");
    } else {
        append_with_arena(out, value);
    }
}

#[cold]
fn append_with_arena<T: Encode>(out: &mut Vec<u8>, value: &T) {
    with_arena(|arena| {
        let mut serializer = Serializer::new(out, arena.acquire(), ());
        rkyv::api::serialize_using::<_, Failure>(value, &mut serializer).expect("the arena grows");
    });
}

/// Archives a borrowed slice as the owned list it will be read as.
pub(super) struct AsVec;

impl<'a, T: Archive> ArchiveWith<&'a [T]> for AsVec {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;

    #[inline]
    fn resolve_with(field: &&'a [T], resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_slice(field, resolver, out);
    }
}

impl<'a, T, S> SerializeWith<&'a [T], S> for AsVec
where
    T: Serialize<S>,
    S: Fallible + Allocator + Writer + ?Sized,
{
    #[inline]
    fn serialize_with(field: &&'a [T], serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(field, serializer)
    }
}

/// Archives borrowed text as an owned string.
pub(super) struct AsString;

impl<'a> ArchiveWith<&'a str> for AsString {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    fn resolve_with(field: &&'a str, resolver: StringResolver, out: Place<ArchivedString>) {
        ArchivedString::resolve_from_str(field, resolver, out);
    }
}

impl<'a, S> SerializeWith<&'a str, S> for AsString
where
    S: Fallible + Writer + ?Sized,
    S::Error: rkyv::rancor::Source,
{
    fn serialize_with(field: &&'a str, serializer: &mut S) -> Result<StringResolver, S::Error> {
        ArchivedString::serialize_from_str(field, serializer)
    }
}
