package leaks

import (
	"strings"
	"testing"
	"time"
)

func TestGoroutinesThatEndByThemselvesAreWaitedFor(t *testing.T) {
	release, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); <-release }()
	err := Wait(0)
	if err == nil || !strings.Contains(err.Error(), "TestGoroutinesThatEndByThemselves") {
		t.Errorf("with a goroutine: %v, want an error that shows it", err)
	}
	time.AfterFunc(2*time.Second, func() { close(release) }) // longer than goleak waits
	if err := Wait(patience); err != nil {
		t.Error(err)
	}
	<-ended
}
