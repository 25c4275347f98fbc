package sim

import (
	"errors"
	"testing"
	"testing/synctest"
)

// TestEndIsKnownWhateverIsDoneToTheNodeAfterwards: what a node says after it was
// killed is no such end.
func TestEndIsKnownWhateverIsDoneToTheNodeAfterwards(t *testing.T) {
	defect := errors.New("a defect")
	for what, do := range map[string]func(c *Cluster) error{
		"nothing":   func(*Cluster) error { return nil },
		"kill":      func(c *Cluster) error { return c.Kill("n2") },
		"power off": func(c *Cluster) error { return c.LoseUnsynced("n2") },
		"stop":      func(c *Cluster) error { return c.Stop("n2") },
		"start":     func(c *Cluster) error { return c.Start("n2") },
		"close":     func(c *Cluster) error { return c.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, Options{})
			must(t, c.Kill("n1"))
			must(t, c.Start("n1"))
			if all := c.Ended(); len(all) != 0 {
				t.Errorf("after a kill and a start %v have ended by themselves", all)
			}
			disk, err := c.Disk("n2")
			must(t, err)
			disk.Fail(defect, 1)
			a := mustClient(t, c, "a")
			g, err := a.Lock(t.Context(), "x")
			must(t, err)
			must(t, g.Unlock())
			<-c.Node("n2").Done()
			must(t, do(c))
			if all := c.Ended(); len(all) != 1 || all[0].Node != "n2" || !errors.Is(all[0], defect) {
				t.Errorf("%s: %v have ended by themselves, want n2, because of %v", what, all, defect)
			}
		})
	}
}
