//! Who may open a directory.

#![expect(unsafe_code, reason = "no safe crate sets access lists")]

use std::{
    io,
    os::windows::ffi::OsStrExt as _,
    path::Path,
    ptr::{null, null_mut},
};

use windows_sys::Win32::{
    Foundation::{ERROR_SUCCESS, LocalFree},
    Security::{
        ACL,
        Authorization::{
            ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1, SE_FILE_OBJECT,
            SetNamedSecurityInfoW,
        },
        DACL_SECURITY_INFORMATION, GetSecurityDescriptorDacl, GetSecurityDescriptorOwner,
        OWNER_SECURITY_INFORMATION, PROTECTED_DACL_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR,
        PSID,
    },
};

use crate::{last_error, wide};

/// Full access for the system and administrators, for everything below too, and nothing from above.
/// The directory belongs to the administrators: its owner could give itself access again.
const ADMINISTRATORS: &str = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)";
/// The same, and for the owner as it is: for somebody who is no administrator.
const AND_OWNER: &str = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)";

/// A security descriptor that Windows made of a text.
struct Descriptor(PSECURITY_DESCRIPTOR);

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the conversion allocated it with LocalAlloc, and nobody else frees it.
        unsafe { LocalFree(self.0) };
    }
}

impl Descriptor {
    fn parse(text: &str) -> io::Result<Self> {
        let text = wide(text);
        let mut made: PSECURITY_DESCRIPTOR = null_mut();
        // SAFETY: the text ends with a zero, `made` is ours to be written, the size is not asked for.
        let well = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut made,
                null_mut(),
            )
        };
        if well == 0 {
            return Err(last_error());
        }
        Ok(Self(made))
    }

    /// The list, which lives as long as `self`.
    fn list(&self) -> io::Result<*mut ACL> {
        let (mut present, mut defaulted) = (0, 0);
        let mut list: *mut ACL = null_mut();
        // SAFETY: the descriptor is alive, and the three places are ours to be written.
        let well = unsafe {
            GetSecurityDescriptorDacl(self.0, &raw mut present, &raw mut list, &raw mut defaulted)
        };
        // No list at all would mean access for everybody.
        if well == 0 || present == 0 || list.is_null() {
            return Err(last_error());
        }
        Ok(list)
    }

    /// The owner, null if it names none; lives as long as `self`.
    fn owner(&self) -> io::Result<PSID> {
        let mut defaulted = 0;
        let mut owner: PSID = null_mut();
        // SAFETY: the descriptor is alive, and the two places are ours to be written.
        let well =
            unsafe { GetSecurityDescriptorOwner(self.0, &raw mut owner, &raw mut defaulted) };
        if well == 0 {
            return Err(last_error());
        }
        Ok(owner)
    }
}

/// Keeps everybody but the system and administrators out of a directory and all that is in it.
/// Somebody who is no administrator keeps access to a directory of their own.
///
/// # Errors
///
/// If the directory is not there, or belongs to somebody else and this process is no
/// administrator's.
pub fn keep_others_out(dir: &Path) -> io::Result<()> {
    apply(dir, ADMINISTRATORS).or_else(|_| apply(dir, AND_OWNER))
}

fn apply(dir: &Path, text: &str) -> io::Result<()> {
    let descriptor = Descriptor::parse(text)?;
    let (list, owner) = (descriptor.list()?, descriptor.owner()?);
    let mut parts = DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION;
    if !owner.is_null() {
        parts |= OWNER_SECURITY_INFORMATION;
    }
    let path: Vec<u16> = dir.as_os_str().encode_wide().chain([0]).collect();
    // SAFETY: the path ends with a zero; list and owner live as long as `descriptor`; what is not
    // set may be null.
    let code = unsafe {
        SetNamedSecurityInfoW(
            path.as_ptr(),
            SE_FILE_OBJECT,
            parts,
            owner,
            null_mut(),
            list,
            null(),
        )
    };
    if code == ERROR_SUCCESS {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code.cast_signed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_security_descriptors() {
        let owned = Descriptor::parse(ADMINISTRATORS).unwrap();
        assert!(!owned.list().unwrap().is_null());
        assert!(!owned.owner().unwrap().is_null());
        let kept = Descriptor::parse(AND_OWNER).unwrap();
        assert!(!kept.list().unwrap().is_null());
        assert!(kept.owner().unwrap().is_null());
        assert!(Descriptor::parse("nonsense").is_err());
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(keep_others_out(Path::new("Z:\\not there")).is_err());
    }
}
