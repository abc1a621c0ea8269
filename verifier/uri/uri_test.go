package uri

import (
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		uri  string
		want []string // segments; nil if the URI is refused
	}{
		{"/", []string{""}},
		{"/site/3", []string{"site", "3"}},
		{"/site/3/", []string{"site", "3", ""}},
		{"/site/3/a%20b", []string{"site", "3", "a b"}},
		{"/site/3/a+b", []string{"site", "3", "a+b"}},
		{"/%73ite/%33", []string{"site", "3"}},
		{"/site/%E2%82%AC", []string{"site", "€"}},
		{"/site/3?", []string{"site", "3"}},
		{"/site/3?a=/../b&c=%2F%00", []string{"site", "3"}},
		{"/site/3?x=a?b", []string{"site", "3"}},
		{"/site/3?x=%23", []string{"site", "3"}},
		{"/site/...", []string{"site", "..."}},
		{"/site/3.json", []string{"site", "3.json"}},
		{"/site/.well-known", []string{"site", ".well-known"}},

		{"", nil},
		{"site/3", nil},
		{"*", nil},
		{"?x", nil},
		{"http://example.org/site/3", nil},
		{"//example.org/site/3", nil},
		{"//", nil},
		{"/site//3", nil},
		{"//site/3", nil},
		{"/site/3//", nil},
		{"/site/3//x", nil},
		{"/./site/3", nil},
		{"/site/.", nil},
		{"/site/3/..", nil},
		{"/site/3/../4", nil},
		{"/../site/3", nil},
		{"/site/%2e/3", nil},
		{"/site/3/%2e%2E/4", nil},
		{"/site/3/.%2e/4", nil},
		{"/site/3%2f..%2f4", nil},
		{"/site%2F3", nil},
		{"/site%5c3", nil},
		{`/site\3`, nil},
		{`/site/3/..\4`, nil},
		{"/site/3;x=1", nil},
		{"/site/3%3bx", nil},
		{"/site/..;/4", nil},
		{"/site/3%3Fx=1", nil},
		{"/site/3%23x", nil},
		{"/site/3#x", nil},
		{"/site/3%00", nil},
		{"/site/3\x00", nil},
		{"/site/3%0a", nil},
		{"/site/3%7f", nil},
		{"/site/3\x1f", nil},
		{"/site/3%", nil},
		{"/site/3%2", nil},
		{"/site/3%zz", nil},
		{"/site/%u0033", nil},
		{"/site/%252e%252e/4", nil},
		{"/site/3%25", nil},
		{"/site/3 x", nil},
		{"/site/3?x#y", nil},
		{"/site/3?x=1#&x=2", nil},
		{"/site/3?a=b c", nil},
		{"/site/3?a=b\nc", nil},
		{"/site/3?a=%", nil},
		{"/site/3?a=1;b=2", nil},
		{"/site/3?a=%zz", nil},
	}
	for _, tt := range tests {
		got, err := Parse(tt.uri)
		switch {
		case tt.want == nil && err == nil:
			t.Errorf("Parse(%q) = %q, want it refused", tt.uri, got.Segments)
		case tt.want != nil && err != nil:
			t.Errorf("Parse(%q): %v", tt.uri, err)
		case tt.want != nil && !slices.Equal(got.Segments, tt.want):
			t.Errorf("Parse(%q) = %q, want %q", tt.uri, got.Segments, tt.want)
		}
	}
}

// FuzzParse compares accepted paths with other parsers: one that decodes before
// it cleans, one that cleans first, one that decodes twice, and one that takes
// backslashes for slashes and cuts off parameters.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"/", "/site/3/", "/site/3/a%20b?x=%2F&y=1", "/site/%2e%2e/4", "/a//b", "/a;b", `/a\b`, "/%00", "/a%2fb", "/%252e", "http://h/a", "/é", "/%ff", "/a?b=1;c", "/a?b=1&B=2", "/a?b[]=1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		got, err := Parse(uri)
		if err != nil {
			return
		}
		mine := "/" + strings.Join(got.Segments, "/")
		raw, _, _ := strings.Cut(uri, "?")
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			t.Fatalf("%q is accepted and no URL: %v", uri, err)
		}
		once, err := url.PathUnescape(raw)
		if err != nil {
			t.Fatalf("%q is accepted and cannot be decoded: %v", uri, err)
		}
		twice, err := url.PathUnescape(once)
		if err != nil {
			t.Fatalf("%q is accepted and cannot be decoded twice: %v", uri, err)
		}
		cleanedFirst, _ := url.PathUnescape(clean(raw))
		servlet, _, _ := strings.Cut(once, ";")
		for reader, theirs := range map[string]string{
			"net/url": u.Path, "decode": once, "decode, clean": clean(once), "clean, decode": cleanedFirst, "decode twice": twice,
			"backslashes": strings.ReplaceAll(once, `\`, "/"), "parameters": servlet, "C": strings.SplitN(once, "\x00", 2)[0],
		} {
			if theirs != mine {
				t.Errorf("%q is %q here and %q to %s", uri, mine, theirs, reader)
			}
		}
		values, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			t.Fatalf("%q is accepted and its query is not: %v", uri, err)
		}
		for name := range values {
			one, found, err := got.Parameter(name)
			if err == nil && (!found || len(values[name]) != 1 || values[name][0] != one) {
				t.Errorf("parameter %q of %q: %q, want one of %q", name, uri, one, values[name])
			}
		}
	})
}

// clean is path.Clean, but keeps a slash at the end.
func clean(p string) string {
	c := path.Clean(p)
	if strings.HasSuffix(p, "/") && c != "/" {
		c += "/"
	}
	return c
}

func TestParameter(t *testing.T) {
	tests := []struct {
		query string
		want  string
		bad   bool
	}{
		{query: ""},
		{query: "&&"},
		{query: "other=1"},
		{query: "id_Site=1", want: "1"},
		{query: "id_Site=1&other=2&other=3", want: "1"},
		{query: "&id_Site=1&&", want: "1"},
		{query: "id%5FSite=1", want: "1"},
		{query: "id%5fSite=%31", want: "1"},
		{query: "id_Site=a+b", want: "a b"},
		{query: "id_Site=%C3%A9", want: "é"},
		{query: "id_Site==1", want: "=1"},
		{query: "id_Sites=1"},
		{query: "id_Site_=1"},
		{query: "id_Site_x=1"},
		{query: "xid_Site=1"},
		{query: "_id_Site=1"},
		{query: "idSite=1"},
		{query: "filter[id_Site]=1"},
		{query: "filter[]=1&filter[]=2&%C3%A9=3&x=%00&y=%FF"},
		{query: "x[id_Site=1"}, // PHP's x_id_Site
		{query: strings.Repeat("x&", maxPieces-1) + "id_Site=1", want: "1"},

		{query: "id_Site=", bad: true},
		{query: "id_Site", bad: true},
		{query: "id_Site=%00", bad: true},
		{query: "id_Site=%FF", bad: true},
		{query: "id_Site=\xc3\xa9", bad: true},
		{query: "id_Site=1]=2", bad: true},
		{query: "id_Site=1%5D=2", bad: true},
		{query: "id_Site=1&x%00=2", bad: true},
		{query: "id_Site=1&%FF=2", bad: true},
		{query: "id_Site=1&\xc3\xa9=2", bad: true},
		{query: "x%00=2", bad: true},
		{query: strings.Repeat("x&", maxPieces) + "id_Site=1", bad: true},
		{query: strings.Repeat("&", maxPieces), bad: true},
		{query: "id[Site=2", bad: true},
		{query: "id_Site=1&id[Site=2", bad: true},
		{query: "id_Site=1&id%5BSite=2", bad: true},
		{query: "id_Site=1&+id[Site=2", bad: true},
		{query: "id_Site=1&[id_Site]=2", bad: true},
		{query: "id_Site=1&=id_Site]=2", bad: true},
		{query: "id_Site=1&?id_Site=2", bad: true},
		{query: "id_Site=1&id%255FSite=2", bad: true},
		{query: "id_Site=1&id-Site=2", bad: true},
		{query: "id_Site=1&%C2%A0id_Site=2", bad: true},
		{query: "id_Site=1&id_%C5%BFite=2", bad: true}, // a long s
		{query: "id_Site=1&id_Site.x=2", bad: true},
		{query: "id_Site=1&id_Site:int=2", bad: true},
		{query: "id_Site=1&id_Site+=2", bad: true},

		{query: "id_Site=1&id_Site=1", bad: true},
		{query: "id_Site=1&id%5FSite=2", bad: true},
		{query: "id_Site=1&id_Site[]=2", bad: true},
		{query: "id_Site=1&id_Site%5B%5D=2", bad: true},
		{query: "id_Site[0]=1", bad: true},
		{query: "id_Site=1&id_Site[", bad: true},
		{query: "id_Site=1&%20id_Site=2", bad: true},
		{query: "id_Site=1&+id_Site=2", bad: true},
		{query: "id_Site=1&id.Site=2", bad: true},
		{query: "id_Site=1&id%20Site=2", bad: true},
		{query: "id_Site=1&id_Site%00=2", bad: true},
		{query: "id_Site=1&id_Site%00x=2", bad: true},
		{query: "id_Site=1&ID_SITE=2", bad: true},
		{query: "idSite=1&id.site=2", bad: true},
	}
	for _, tt := range tests {
		target, err := Parse("/?" + tt.query)
		if err != nil {
			t.Errorf("%q: %v", tt.query, err)
			continue
		}
		got, found, err := target.Parameter("id_Site")
		if (err != nil) != tt.bad || got != tt.want || found != (tt.want != "") {
			t.Errorf("%q: parameter = %q, %t, %v; want %q, refused %t", tt.query, got, found, err, tt.want, tt.bad)
		}
	}
}
