package guard

import (
	"log"
	"os"
)

// raft-wal imports coreos/pkg/capnslog, which takes the standard logger of the
// whole program over when it is initialised: another format, and journald
// instead of standard error under systemd. A library must not do that to its
// host, so this gives the logger back. It runs after capnslog's initialisation
// and before that of any package that imports a node.
func init() {
	log.SetOutput(os.Stderr)
	log.SetFlags(log.LstdFlags)
	log.SetPrefix("")
}
