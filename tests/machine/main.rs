//! Stories on a booted machine of their own: the packages as an administrator installs them, real
//! units of a real systemd, real reboots. `tests/run.sh machine` makes what they need.

mod disk;
mod journal;
mod packages;
mod power;
mod services;
mod site;
