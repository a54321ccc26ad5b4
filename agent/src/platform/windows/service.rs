//! The agent as a service of Windows: what the service manager says to it, and putting it there.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    sync::OnceLock,
    time::Duration,
};

use windows_service::{
    define_windows_service,
    service::{
        ServiceAccess, ServiceAction, ServiceActionType, ServiceControl, ServiceControlAccept,
        ServiceErrorControl, ServiceExitCode, ServiceFailureActions, ServiceFailureResetPeriod,
        ServiceInfo, ServiceStartType, ServiceState, ServiceStatus, ServiceType,
    },
    service_control_handler::{self, ServiceControlHandlerResult, ServiceStatusHandle},
    service_dispatcher,
    service_manager::{ServiceManager, ServiceManagerAccess},
};

use super::{GOING_DOWN, STOP};

/// The service's name.
pub const NAME: &str = "watchkeep-agent";
const DISPLAY_NAME: &str = "Watchkeep agent";
const DESCRIPTION: &str = "Watches this server and reports to a Watchkeep collector.";
/// A service that ended by itself is started again after this, like `RestartSec` of the Linux unit.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// Its failures are forgotten after a day without one.
const FORGET_AFTER: Duration = Duration::from_hours(24);
/// How long the goodbye may take, as `TimeoutStopSec` of the Linux unit.
const STOP_WAIT: Duration = Duration::from_secs(20);

/// What the service does, given before the service manager calls back.
static BODY: OnceLock<Body> = OnceLock::new();

/// Runs until it is asked to stop; whether that succeeded.
pub type Body = Box<dyn Fn() -> bool + Send + Sync>;

define_windows_service!(service_main, run_service);

/// Runs as a service until the service manager ends it. Called from a console it fails at once.
///
/// # Errors
///
/// If this process was not started by the service manager.
pub fn run(body: Body) -> windows_service::Result<()> {
    // Only the first counts; there is one call.
    let _ = BODY.set(body);
    service_dispatcher::start(NAME, service_main)
}

fn run_service(_arguments: Vec<OsString>) {
    let registered = service_control_handler::register(NAME, |control| match control {
        ServiceControl::Stop => {
            STOP.cancel();
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Shutdown | ServiceControl::Preshutdown => {
            GOING_DOWN.cancel();
            STOP.cancel();
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    });
    let Ok(handle) = registered else { return };
    tell(handle, ServiceState::Running, true);
    let well = BODY.get().is_some_and(|body| body());
    tell(handle, ServiceState::Stopped, well);
}

fn tell(handle: ServiceStatusHandle, state: ServiceState, well: bool) {
    let accepted = if state == ServiceState::Running {
        ServiceControlAccept::STOP | ServiceControlAccept::PRESHUTDOWN
    } else {
        ServiceControlAccept::empty()
    };
    let status = ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state: state,
        controls_accepted: accepted,
        exit_code: if well {
            ServiceExitCode::NO_ERROR
        } else {
            ServiceExitCode::ServiceSpecific(1)
        },
        checkpoint: 0,
        wait_hint: STOP_WAIT,
        process_id: None,
    };
    if let Err(error) = handle.set_service_status(status) {
        tracing::warn!(%error, "failed to report to the service manager");
    }
}

/// Makes the service: started with the machine, after the rest; started again when it fails.
///
/// # Errors
///
/// Without the rights of an administrator, or if there is one already.
pub fn install(program: &Path, config: Option<&Path>) -> windows_service::Result<()> {
    let manager = ServiceManager::local_computer(
        None::<&OsStr>,
        ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE,
    )?;
    let mut arguments = vec![OsString::from("service"), OsString::from("run")];
    if let Some(config) = config {
        arguments.extend([OsString::from("--config"), config.into()]);
    }
    let service = manager.create_service(
        &ServiceInfo {
            name: NAME.into(),
            display_name: DISPLAY_NAME.into(),
            service_type: ServiceType::OWN_PROCESS,
            start_type: ServiceStartType::AutoStart,
            error_control: ServiceErrorControl::Normal,
            executable_path: program.to_owned(),
            launch_arguments: arguments,
            dependencies: Vec::new(),
            // LocalSystem: the boot's key in the registry and other services' states need it.
            account_name: None,
            account_password: None,
        },
        ServiceAccess::CHANGE_CONFIG | ServiceAccess::START,
    )?;
    service.set_description(DESCRIPTION)?;
    service.update_failure_actions(ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FORGET_AFTER),
        reboot_msg: None,
        command: None,
        actions: Some(vec![ServiceAction {
            action_type: ServiceActionType::Restart,
            delay: RESTART_AFTER,
        }]),
    })?;
    // A refinement, which Wine does not have: a crash is acted on without it.
    if let Err(error) = service.set_failure_actions_on_non_crash_failures(true) {
        tracing::warn!(%error, "the service is started again after crashes only");
    }
    Ok(())
}

/// Stops and deletes the service. Settings and state stay.
///
/// # Errors
///
/// Without the rights of an administrator, or if there is none.
pub fn remove() -> windows_service::Result<()> {
    let manager = ServiceManager::local_computer(None::<&OsStr>, ServiceManagerAccess::CONNECT)?;
    let access = ServiceAccess::STOP | ServiceAccess::DELETE;
    let service = manager.open_service(NAME, access)?;
    // It may have been stopped already.
    let _ = service.stop();
    service.delete()
}
