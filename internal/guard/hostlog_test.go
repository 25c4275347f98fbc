package guard

import (
	"log"
	"os"
	"testing"
)

func TestTheHostsLoggerIsLeftAlone(t *testing.T) {
	if log.Writer() != os.Stderr || log.Flags() != log.LstdFlags || log.Prefix() != "" {
		t.Fatalf("standard logger writes to %v with flags %d and prefix %q; want standard error, %d and none",
			log.Writer(), log.Flags(), log.Prefix(), log.LstdFlags)
	}
}
