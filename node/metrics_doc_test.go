package node

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

const operationsDoc = "../docs/operations.md"

// metricRow is one line of the table of metrics; a description has no kind.
type metricRow struct{ kind, labels, help string }

func TestEveryMetricIsDocumented(t *testing.T) {
	exported, documented := exportedMetrics(t), documentedMetrics(t)
	for name, m := range exported {
		doc, ok := documented[name]
		switch {
		case !ok:
			t.Errorf("%s is exported and not in the table of %s", name, operationsDoc)
		case doc.labels != m.labels:
			t.Errorf("%s: labels %q in %s, exported with %q", name, doc.labels, operationsDoc, m.labels)
		case doc.help == "":
			t.Errorf("%s: %s does not say what it means", name, operationsDoc)
		}
	}
	for name := range documented {
		if _, ok := exported[name]; !ok {
			t.Errorf("%s is in the table of %s and not exported", name, operationsDoc)
		}
	}
}

func TestCountersAndOnlyTheyAreNamedTotal(t *testing.T) {
	for name, m := range documentedMetrics(t) {
		if counts := m.kind == "counter"; counts != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is documented as a %s", name, m.kind)
		}
	}
}

var descPattern = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "([^"]*)".*variableLabels: \{([^}]*)\}\}$`)

// exportedMetrics returns all metrics of a node, also those that a scrape shows only after
// their first count.
func exportedMetrics(t *testing.T) map[string]metricRow {
	t.Helper()
	n := startCluster(t, 1).leader()
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		n.metrics.registry.Describe(descs)
	}()
	all := make(map[string]metricRow)
	for d := range descs {
		m := descPattern.FindStringSubmatch(d.String())
		if m == nil {
			t.Errorf("description %s is not understood", d)
			continue
		}
		if strings.HasPrefix(m[1], "locknode_") { // the others are those of every Go program
			all[m[1]] = metricRow{labels: labelList(m[3]), help: m[2]}
		}
	}
	return all
}

// labelList sorts the labels.
func labelList(text string) string {
	labels := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '`' })
	slices.Sort(labels)
	return strings.Join(labels, ",")
}

var metricRowPattern = regexp.MustCompile("(?m)^\\| `(locknode_[a-z_]+)` \\|([^|]*)\\|([^|]*)\\|([^|]*)\\|$")

// documentedMetrics reads the table: name, kind, labels, meaning.
func documentedMetrics(t *testing.T) map[string]metricRow {
	t.Helper()
	text, err := os.ReadFile(operationsDoc)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]metricRow)
	for _, m := range metricRowPattern.FindAllStringSubmatch(string(text), -1) {
		if _, twice := all[m[1]]; twice {
			t.Errorf("%s is in the table twice", m[1])
		}
		all[m[1]] = metricRow{strings.TrimSpace(m[2]), labelList(m[3]), strings.TrimSpace(m[4])}
	}
	return all
}
