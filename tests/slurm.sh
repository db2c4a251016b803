#!/usr/bin/env bash
# A Slurm of one controller and one node on this machine, all of it below one folder: for tests/test_slurm.py and continuous integration.
#   tests/slurm.sh install        Debian's or Ubuntu's packages (root); none of their services is started
#   tests/slurm.sh start FOLDER   starts munge, controller and node; then: export SLURM_CONF=FOLDER/slurm.conf
#   tests/slurm.sh stop FOLDER    ends them and every job
set -euo pipefail

install() {
    local rule=/usr/sbin/policy-rc.d made=
    if [ ! -e "$rule" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$rule"
        chmod +x "$rule"
        made=$rule
    fi
    trap '[ -z "$made" ] || rm -f "$made"' RETURN
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
}

start() {
    local folder host cores
    mkdir -p "$1"
    folder=$(realpath "$1") host=$(hostname -s) cores=$(nproc)
    mkdir -p "$folder"/{state,spool,munge}
    chmod 700 "$folder/munge"
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
    read -r controller_port node_port < <(free_ports)
    cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$controller_port
SlurmdPort=$node_port
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
ReturnToService=2
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes=$host MaxTime=INFINITE State=UP PriorityTier=2
CONF
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" 2>>"$folder/munge/start.log"
    slurmctld -i -f "$folder/slurm.conf"
    slurmd -f "$folder/slurm.conf"
    export SLURM_CONF=$folder/slurm.conf
    for _ in $(seq 150); do
        if [ "$(sinfo --noheader --partition=low --format=%T 2>/dev/null)" = idle ]; then return; fi
        sleep 0.2
    done
    echo "Slurm did not start within 30 s; the end of its logs:" >&2
    tail -n 5 "$folder"/*.log >&2
    stop "$folder"
    return 1
}

stop() {
    local folder name pid
    folder=$(realpath "$1")
    SLURM_CONF=$folder/slurm.conf timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 50); do
        [ -z "$(SLURM_CONF=$folder/slurm.conf timeout 5 squeue --noheader 2>/dev/null)" ] && break
        sleep 0.2
    done
    for name in slurmd slurmctld munged; do
        pid=$(cat "$folder/$name.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 50); do
            [[ $(ps -o stat= -p "$pid" 2>/dev/null) == [!Z]* ]] || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
}

free_ports() {
    python3 -c 'import socket; a, b = socket.socket(), socket.socket(); a.bind(("", 0)); b.bind(("", 0)); print(a.getsockname()[1], b.getsockname()[1])'
}

case "${1:-}" in
install) install ;;
start | stop) "$1" "${2:?which folder}" ;;
*) sed -n '2,5s/^# *//p' "$0" && exit 2 ;;
esac
