#!/bin/bash
# DevStack on Debian 12: enable_plugin predella https://... in local.conf, with
# this directory as the plugin's devstack/.

PREDELLA_DIR=${PREDELLA_DIR:-$DEST/predella}

function install_predella {
    "$PREDELLA_DIR/scripts/setup" --glance
    (cd "$PREDELLA_DIR" && cmake --preset release &&
        cmake --build build/release --target predella predella-coordinator \
            predella-agent predella_native)
    PREDELLA_BUILD_DIR=$PREDELLA_DIR/build/release \
        pip_install "$PREDELLA_DIR/client/python"
}

function start_predella {
    local entry
    for entry in ${PREDELLA_DATADIRS//,/ }; do
        mkdir -p "${entry%:*}"
    done
    mkdir -p "$PREDELLA_STATE_DIR"
    run_process predella "$PREDELLA_DIR/build/release/bin/predella serve --init \
--datadirs $PREDELLA_DATADIRS --state-dir $PREDELLA_STATE_DIR"
}

function configure_predella {
    iniset "$GLANCE_API_CONF" DEFAULT enabled_backends \
        "$PREDELLA_BACKEND:predella"
    iniset "$GLANCE_API_CONF" glance_store default_backend "$PREDELLA_BACKEND"
    iniset "$GLANCE_API_CONF" "$PREDELLA_BACKEND" predella_endpoint \
        "unix:$PREDELLA_STATE_DIR/run/coordinator.sock"
    iniset "$GLANCE_API_CONF" "$PREDELLA_BACKEND" \
        multifilesystem_store_datadir "$PREDELLA_DATADIRS"
}

if is_service_enabled predella; then
    case "$1 ${2:-}" in
        "stack install") install_predella ;;
        "stack post-config") configure_predella; start_predella ;;
        "unstack ") stop_process predella ;;
    esac
fi
