# CHAP in one and in both directions; every wrong way is refused with an authentication failure.
. /share/lib.sh
AUTH_FAILED=24    # iscsiadm's word for status 0201h
LOGIN_FAILED=19   # and for a login that the initiator itself gives up
wait_host
check "discovery" discover
credentials() { # TARGET USER SECRET
  set_node "$1" node.session.auth.authmethod CHAP
  set_node "$1" node.session.auth.username "$2"
  set_node "$1" node.session.auth.password "$3"
}
mutual() { # TARGET USER SECRET
  set_node "$1" node.session.auth.username_in "$2"
  set_node "$1" node.session.auth.password_in "$3"
}
node_of() { iscsiadm -m node -T "$1" -p $PORTAL -o new; }
# A target behind CHAP may be hidden from discovery; its node record is made by hand then.
node_of $CHAP_TARGET >/dev/null 2>&1
node_of $MUTUAL_TARGET >/dev/null 2>&1

refused "no credentials" $AUTH_FAILED login $CHAP_TARGET
for algorithm in MD5 SHA1 SHA256 SHA3-256; do
  set_node $CHAP_TARGET node.session.auth.chap_algs $algorithm
  credentials $CHAP_TARGET alice alice-secret-01
  check "CHAP with $algorithm" login $CHAP_TARGET
  check "the disk behind CHAP" disk_of $CHAP_TARGET
  check "logout" logout $CHAP_TARGET
  credentials $CHAP_TARGET alice alice-secret-02
  refused "a wrong secret with $algorithm" $AUTH_FAILED login $CHAP_TARGET
done
credentials $CHAP_TARGET bob alice-secret-01
refused "a wrong user" $AUTH_FAILED login $CHAP_TARGET

credentials $MUTUAL_TARGET alice alice-secret-01
mutual $MUTUAL_TARGET plexus plexus-secret-1
check "mutual CHAP" login $MUTUAL_TARGET
check "the disk behind mutual CHAP" disk_of $MUTUAL_TARGET
check "logout" logout $MUTUAL_TARGET
mutual $MUTUAL_TARGET plexus plexus-secret-2
refused "a target that cannot prove itself" $LOGIN_FAILED login $MUTUAL_TARGET
equal "nobody is logged in" "$(iscsiadm -m session 2>&1 | grep -c iqn)" 0
clean_log "detected conn error .1020." # the logins that were refused
