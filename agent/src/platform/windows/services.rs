//! The service manager: how a service is, and which services start by themselves.

use std::{ffi::OsStr, io};

use windows_service::{
    Error,
    service::{Service, ServiceAccess, ServiceExitCode, ServiceStartType, ServiceState},
    service_manager::{ServiceManager, ServiceManagerAccess},
};
use winsafe::{HKEY, RegistryValue, co};

use crate::platform::{ServiceExit, ServiceReport, ServiceRun};

/// `ERROR_SERVICE_DOES_NOT_EXIST`.
const NO_SUCH_SERVICE: i32 = 1_060;
/// Where the manager keeps its services.
const SERVICES: &str = r"SYSTEM\CurrentControlSet\Services";
/// `SERVICE_AUTO_START`.
const AUTOMATIC: u32 = 2;
/// `SERVICE_WIN32_OWN_PROCESS` and `SERVICE_WIN32_SHARE_PROCESS`; drivers have neither.
const PROGRAM: u32 = 0x30;

/// How a service is; `None` if there is none of this short name.
pub fn service_report(name: &str) -> io::Result<Option<ServiceReport>> {
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::QUERY_CONFIG;
    let manager = ServiceManager::local_computer(None::<&OsStr>, ServiceManagerAccess::CONNECT);
    let opened = manager.and_then(|manager| manager.open_service(name, access));
    let service = match opened.map_err(plain) {
        Ok(service) => service,
        Err(error) if error.raw_os_error() == Some(NO_SUCH_SERVICE) => return Ok(None),
        Err(error) => return Err(error),
    };
    let status = service.query_status().map_err(plain)?;
    let run = match status.current_state {
        ServiceState::Stopped => ServiceRun::Stopped,
        ServiceState::StartPending | ServiceState::ContinuePending => ServiceRun::Starting,
        ServiceState::StopPending | ServiceState::PausePending => ServiceRun::Stopping,
        ServiceState::Running => ServiceRun::Running,
        ServiceState::Paused => ServiceRun::Paused,
    };
    Ok(Some(ServiceReport {
        run,
        disabled: run == ServiceRun::Stopped && is_disabled(&service),
        exit: match status.exit_code {
            ServiceExitCode::Win32(code) => ServiceExit::System(code),
            ServiceExitCode::ServiceSpecific(code) => ServiceExit::Own(code),
        },
        pid: status.process_id.filter(|pid| *pid != 0),
        checkpoint: status.checkpoint,
    }))
}

fn is_disabled(service: &Service) -> bool {
    let config = service.query_config();
    config.is_ok_and(|config| config.start_type == ServiceStartType::Disabled)
}

fn plain(error: Error) -> io::Error {
    match error {
        Error::Winapi(error) => error,
        other => io::Error::other(other),
    }
}

/// Services that start with the machine, by their short names, with the names for people where these
/// are written down. Those that an event starts and that then end are left out: they are stopped
/// most of the time.
pub fn automatic_services() -> Vec<(String, Option<String>)> {
    let open = |name: Option<&str>, key: &HKEY| {
        let options = co::REG_OPTION::default();
        key.RegOpenKeyEx(name, options, co::KEY::READ).ok()
    };
    let Some(services) = open(Some(SERVICES), &HKEY::LOCAL_MACHINE) else {
        return Vec::new();
    };
    let Ok(names) = services.RegEnumKeyEx() else {
        return Vec::new();
    };
    let automatic = |name: String| {
        let service = open(Some(&name), &services)?;
        let number = |value: &str| match service.RegQueryValueEx(Some(value)) {
            Ok(RegistryValue::Dword(number)) => number,
            _ => 0,
        };
        let starts = number("Start") == AUTOMATIC && number("Type") & PROGRAM != 0;
        if !starts || open(Some("TriggerInfo"), &service).is_some() {
            return None;
        }
        let shown = match service.RegQueryValueEx(Some("DisplayName")) {
            // A text that begins so names a resource of a program.
            Ok(RegistryValue::Sz(shown)) if !shown.starts_with('@') => Some(shown),
            _ => None,
        };
        Some((name, shown))
    };
    names.filter_map(Result::ok).filter_map(automatic).collect()
}
