package apidocs

import (
	"html"
	"regexp"
	"strings"
)

// problemPages returns a page for each heading of a Markdown text, and one with all
// of it. They know the few forms that problems.md uses.
func problemPages(text string) map[string][]byte {
	pages := map[string][]byte{}
	head, sections, _ := strings.Cut(text, "\n## ")
	var all strings.Builder
	all.WriteString(markdown(strings.TrimPrefix(head, "# Problems")))
	if sections == "" {
		return pages
	}
	for section := range strings.SplitSeq(sections, "\n## ") {
		code, body, _ := strings.Cut(section, "\n")
		title := html.EscapeString(code)
		content := markdown(body)
		pages["/problems/"+code] = page(title, "<h1>"+title+"</h1>\n"+content+"<p><a href=\"/problems\">All problems</a></p>\n")
		all.WriteString("<h2 id=\"" + title + "\"><a href=\"/problems/" + title + "\">" + title + "</a></h2>\n" + content)
	}
	pages["/problems"] = page("Problems", "<h1>Problems</h1>\n"+all.String())
	return pages
}

func page(title, body string) []byte {
	return []byte("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n" +
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" + title +
		"</title>\n<link rel=\"stylesheet\" href=\"/docs/page.css\">\n</head>\n<body>\n" + body + "</body>\n</html>\n")
}

// markdown turns paragraphs, lists and tables into HTML.
func markdown(text string) string {
	var b strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		switch {
		case strings.HasPrefix(block, "- "):
			b.WriteString("<ul>\n")
			for item := range strings.SplitSeq(block[2:], "\n- ") {
				b.WriteString("<li>" + inline(item) + "</li>\n")
			}
			b.WriteString("</ul>\n")
		case strings.HasPrefix(block, "|"):
			b.WriteString("<table>\n")
			for i, row := range strings.Split(block, "\n") {
				cell := "td"
				if i == 0 {
					cell = "th"
				}
				if i == 1 {
					continue // the line below the header
				}
				b.WriteString("<tr>")
				for c := range strings.SplitSeq(strings.Trim(row, "| "), " | ") {
					b.WriteString("<" + cell + ">" + inline(c) + "</" + cell + ">")
				}
				b.WriteString("</tr>\n")
			}
			b.WriteString("</table>\n")
		case block != "":
			b.WriteString("<p>" + inline(block) + "</p>\n")
		}
	}
	return b.String()
}

var (
	codeSpan = regexp.MustCompile("`([^`]+)`")
	link     = regexp.MustCompile(`\[([^\]]+)\]\(#([a-z_]+)\)`)
)

// inline turns code and links to other headings into HTML.
func inline(s string) string {
	s = html.EscapeString(s)
	s = link.ReplaceAllString(s, `<a href="/problems/$2">$1</a>`)
	return codeSpan.ReplaceAllString(s, "<code>$1</code>")
}
