package render

import "testing"

func TestWrap(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"one two three", "one two\nthree"},
		{"one\ntwo three\n\n  a list that stays as it is\nfour", "one two\nthree\n\n  a list that stays as it is\nfour"},
		{"averylongword b", "averylongword\nb"},
		{"äöüß äöü", "äöüß äöü"},
		{"", ""},
	} {
		if got := Wrap(tt.in, 8); got != tt.want {
			t.Errorf("Wrap(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestIndent(t *testing.T) {
	if got, want := Indent("a bb ccc dddd", 6, "> ", ". "), "> a bb\n. ccc\n. dddd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
