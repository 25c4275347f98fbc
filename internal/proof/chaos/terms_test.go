//go:build unix

package chaos

import (
	"slices"
	"testing"
)

// A check that finds nothing must be able to.
func TestTermsThatANodeHasLedAreRead(t *testing.T) {
	const logs = `time=2026-01-02T03:04:05.000Z level=INFO msg="leading the cluster" node=n1 term=3
time=2026-01-02T03:04:06.000Z level=INFO msg="not leading any more" node=n1 term=3
time=2026-01-02T03:04:07.000Z level=INFO msg="leading the cluster" node=n1 term=12
`
	if got, want := termsLed(logs), []string{"3", "12"}; !slices.Equal(got, want) {
		t.Errorf("terms %q, want %q", got, want)
	}
}
