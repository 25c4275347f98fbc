package membership

import "testing"

func TestWhenThereIsAVoterToSpare(t *testing.T) {
	for _, tt := range []struct {
		voters, silent int
		want           bool
	}{
		{1, 0, true},
		{2, 0, true}, // it never has one to spare
		{2, 1, false},
		{3, 0, true},
		{3, 1, false},
		{4, 0, true},
		{4, 1, false},
		{5, 1, true},
		{5, 2, false},
		{6, 1, true},
		{6, 2, false},
		{7, 2, true},
	} {
		e := Electorate{Voters: make([]string, tt.voters), Silent: make([]string, tt.silent)}
		if got := e.Spare(); got != tt.want {
			t.Errorf("%d voters of which %d are silent: spare = %v", tt.voters, tt.silent, got)
		}
	}
}
