package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/quote"
)

func sessionsDocument(sessions []client.SessionInfo, next uint64) document.Sessions {
	d := document.Sessions{Sessions: make([]document.Session, 0, len(sessions)), Next: pageText(next)}
	for _, s := range sessions {
		one := document.Session{
			Hash: s.Hash, Number: s.Number, Owner: s.Owner, Holder: s.Holder,
			Grants: s.Grants, Waiters: s.Waiters, TableBytes: s.Bytes, Labels: s.Labels,
		}
		one.SetTimes(s.TTL, s.Remaining)
		d.Sessions = append(d.Sessions, one)
	}
	return d
}

// pageText is the next page in the form that --page takes.
func pageText(next uint64) string {
	if next == 0 {
		return ""
	}
	return strconv.FormatUint(next, 10)
}

func (a *app) printSessions(sessions []client.SessionInfo, next uint64) error {
	if len(sessions) == 0 {
		return a.printf("no such session is open\n")
	}
	var rows [][]string
	for _, s := range sessions {
		rows = append(rows, []string{
			s.Hash, a.nameCell(s.Owner), a.nameCell(s.Holder), document.ShortDuration(s.TTL), roughly(s.Remaining), strconv.Itoa(s.Grants), strconv.Itoa(s.Waiters),
		})
	}
	if err := a.table([]string{"SESSION", "FROM", "HOLDER", "TTL", "LEFT", "GRANTS", "WAITING"}, rows); err != nil || next == 0 {
		return err
	}
	return a.printf("and more: --limit 0 lists all, --page %d the next ones\n", next)
}

func limitDocuments(limits []client.LimitInfo) []document.Limit {
	documents := make([]document.Limit, 0, len(limits))
	for _, l := range limits {
		documents = append(documents, document.Limit{Name: l.Name, Value: l.Value, Text: limitText(l), Default: l.Default, Largest: l.Largest})
	}
	return documents
}

func (a *app) printLimits(limits []client.LimitInfo) error {
	var rows [][]string
	for _, l := range limits {
		def, largest := l, l
		def.Value, largest.Value = l.Default, l.Largest
		rows = append(rows, []string{quoteName(l.Name), limitText(l), limitText(def), limitText(largest)})
	}
	return a.table([]string{"LIMIT", "VALUE", "DEFAULT", "LARGEST"}, rows)
}

// printOwners shows which addresses use most of the table. The figures are the leader's, or
// if it does not answer, those of another node.
func (a *app) printOwners(nodes []nodeStatus) error {
	var from nodeStatus
	for _, n := range nodes {
		if n.err == nil && (from.status.NodeID == "" || n.status.State == client.StateLeader) {
			from = n
		}
	}
	s := from.status
	if s.FeatureLevel < s.FeatureLevelKnown {
		if err := a.printf("\nThe cluster is at feature level %d, and this version knows %d: \"locknode members\" shows the level of each node.\n",
			s.FeatureLevel, s.FeatureLevelKnown); err != nil {
			return err
		}
	}
	if err := a.printAuth(nodes); err != nil || len(s.TopOwners) == 0 {
		return err
	}
	var rows [][]string
	for _, o := range s.TopOwners {
		number := strconv.Itoa
		rows = append(rows, []string{
			a.nameCell(o.Owner), number(o.Sessions), number(o.Grants), number(o.Waiters),
			number(o.RequestIDs), number(o.EndedSessions), roughBytes(o.Bytes),
		})
	}
	if err := a.printf("\nThe table uses %s of %s. The addresses that use most, out of %d:\n",
		roughBytes(s.TableBytes), roughBytes(s.TableBytesLimit), s.Owners); err != nil {
		return err
	}
	return a.table([]string{"FROM", "SESSIONS", "GRANTS", "WAITING", "IDS KEPT", "ENDED", "MEMORY"}, rows)
}

// printAuth says which nodes enforce rights, unless all of them have them off.
func (a *app) printAuth(nodes []nodeStatus) error {
	modes := map[string][]string{}
	for _, n := range nodes {
		if n.err != nil {
			continue
		}
		mode := n.status.AuthMode
		if n.status.AuthNote != "" {
			mode += ", not enforced: " + quote.Text(n.status.AuthNote)
		}
		modes[mode] = append(modes[mode], a.nameCell(n.id))
	}
	delete(modes, "")
	if len(modes["off"]) > 0 && len(modes) == 1 {
		return nil
	}
	for _, mode := range sortedKeys(modes) {
		if err := a.printf("\nRights (auth.mode) are %s on %s.\n", mode, strings.Join(modes[mode], ", ")); err != nil {
			return err
		}
	}
	return nil
}

// roughBytes formats a size with one unit.
func roughBytes(n int64) string {
	for _, u := range document.Units[:4] {
		if n >= 10*u.Size || n >= u.Size && u.Size == 1<<10 {
			return strconv.FormatInt(n/u.Size, 10) + " " + u.Name
		}
	}
	return fmt.Sprintf("%d B", n)
}
