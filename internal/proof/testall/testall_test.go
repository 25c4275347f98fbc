package testall

import "testing"

func TestOnlyRunsWhereEverythingIsAskedFor(t *testing.T) {
	for _, tt := range []struct {
		value string
		runs  bool
	}{{"", false}, {"1", true}, {"yes", true}} {
		t.Setenv(Variable, tt.value)
		want := tt.runs && !testing.Short() // -short is stronger
		ran := false
		t.Run("with "+tt.value, func(t *testing.T) {
			Only(t, "a test of it")
			ran = true
		})
		if ran != want || On() != want || Pick(true, false) != want {
			t.Errorf("%s=%q: ran %v, On %v, want %v", Variable, tt.value, ran, On(), want)
		}
	}
}
