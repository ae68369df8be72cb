# host: disks=4 diskMiB=256 vagrant=yes
# Plays vagrant/incident in this lab: a disk dies under load and is replaced. What it shows is quoted in vagrant/incident.md.
BARE=1
. /share/lib.sh
wait_host
check "volume create" plexus volume create "$VOLUME" --raid5 d1 d2 d3 --wait
# Slow enough to be seen: disks in memory are rebuilt in a second.
check "jobs are limited" plexus job limit all 60MiB
check "the initiator is made" sh /vagrant/provision/linux-initiator.sh
# This guest is both machines: what Vagrant would run there is run here, where plexus asks the host.
mkdir /tmp/bin
printf '#!/bin/sh\nBARE=1\n. /share/lib.sh\nplexus "$@"\n' >/tmp/bin/plexus
printf '#!/bin/sh\nexec "$@"\n' >/tmp/bin/sudo
chmod +x /tmp/bin/*
cat >/tmp/hands <<'EOT'
vagrant() { sh -c "$5"; } # ssh MACHINE --no-tty -c COMMAND
die() {
  echo "The disk is pulled out."
  (BARE=1 && . /share/lib.sh && answer=$(ask pull "$1") || fail "$answer")
}
revive() {
  echo "The disk is plugged in."
  (BARE=1 && . /share/lib.sh && answer=$(ask plug "$1") || fail "$answer")
}
EOT
{
  PATH=/tmp/bin:$PATH INCIDENT_HANDS=/tmp/hands sh /vagrant/incident 2>&1
  echo $? >/tmp/incident.status
} | tee /tmp/incident.out
equal "the incident's exit status" "$(cat /tmp/incident.status)" 0
for seen in 'state: DEGRADED' 'fio is at work' 'REVIVING' 'rebuild of .* is done' 'written and read back without an error'; do
  check "it shows: $seen" grep -q "$seen" /tmp/incident.out
done
equal "no mismatch" "$(plexus job list --no-headings -p -o kind,mismatches | grep ^check | cut -f 2)" 0
clean_log
