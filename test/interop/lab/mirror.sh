# host: disks=3 diskMiB=128 volumes=db
# A mirror loses a disk under load and gets it back, then loses the other one, which is replaced; plexusd is killed
# during the rebuild. The initiator notices nothing but the crash, and no byte is wrong.
. /share/lib.sh
wait_host
check "volume create" plexus volume create db --mirror d1 d2
check "it is synchronised" plexus wait db --timeout 20s
shows "status: up" 'state: UP ' plexus status db
attach $VOLUMES_TARGET
fill "$DISK" 80m
start_load "$DISK"
# Until a region without writes is known to be the same in all copies: five to ten seconds.
sleep 10

say "a disk is pulled and returns"
equal "d1 is pulled" "$(ask pull d1)" pulled
shows "status: degraded" 'state: DEGRADED' plexus status db
shows "status: since when" 'd1 +STALE .*gone since [0-9-]{10} [0-9:]{8}' plexus status db
refused "status --check says degraded" 10 plexus status --check
loaded "the load goes on"
check "jobs are limited" plexus job limit all 8MiB
equal "d1 returns" "$(ask plug d1)" plugged
shows "status: d1 is being filled" 'd1 +REVIVING' plexus status db
check "status: it is synchronised" grep -q 'state: SYNCING' /tmp/shows.log
# All of it would be 126 MiB, and more than fifteen seconds.
check "only what was written meanwhile is copied" plexus wait db --timeout 12s
shows "status: up" 'state: UP ' plexus status db
loaded "the load goes on"

say "the other disk is pulled and replaced, plexusd is killed"
equal "d2 is pulled" "$(ask pull d2)" pulled
shows "status: d2 is missing" 'action: .*volume replace db d2 ' plexus status db
check "volume replace" plexus volume replace db d2 d3
shows "status: d3 is being filled" 'd3 +REVIVING' plexus status db
caught sync 8MiB
crash sync
loaded "the load goes on"
check "no limit" plexus job limit "$JOB" none
check "nor for all, which outlives a restart" plexus job limit all none
check "the rebuild ends" plexus wait db --timeout 20s
shows "status: up" 'state: UP ' plexus status db
plexus status db
stop_load
filled "what was written before all this" "$DISK" 80m

say "each copy is whole"
check "scrub" plexus volume scrub db --wait
job check
equal "no mismatch" "$(plexus job list --no-headings -p -o kind,mismatches | grep ^check | cut -f 2)" 0
check "logout" logout $VOLUMES_TARGET
clean_log 'conn error|connection[0-9]+:0'
