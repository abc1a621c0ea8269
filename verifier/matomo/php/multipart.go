package php

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"regexp"
	"strings"
)

// PHP's reader of multipart bodies accepts nearly anything, and reads much of it
// as no other reader does. Only the form that clients send is read here; in that
// form all readers agree.

// maxPartHeader is the most bytes of a header of a part. PHP splits lines of more
// than 5 kB.
const maxPartHeader = 1000

var (
	// multipartParams matches what follows the media type: the boundary, maybe
	// with a charset before or behind it.
	multipartParams = regexp.MustCompile(`^(?: *; *charset="?[\w-]+"?)? *; *(?i:boundary)=(?:"([\w'()+,./:=? -]{1,70})"|([\w'()+./:=?-]{1,70}))` +
		`(?: *; *charset="?[\w-]+"?)? *;? *$`)
	// partParam matches a parameter of Content-Disposition. To PHP, a quote behind
	// a backslash never ends a string.
	partParam = regexp.MustCompile(`^ *; *([A-Za-z]+)=(?:"((?:[^"\\]|\\+[^\\])*)"|([\w.\[\]%-]+)) *`)
	// extendedName matches a parameter that PHP ignores.
	extendedName = regexp.MustCompile(`^ *; *filename\*=[\w-]*'[\w-]*'[\w.%~!$&+-]* *`)
	// evenBackslashes matches a quote that ends a string to other readers.
	evenBackslashes = regexp.MustCompile(`(?:^|[^\\])(?:\\\\)+"`)
	// fileName matches names of fields with files. PHP ignores a file whose name
	// has unbalanced brackets.
	fileName = regexp.MustCompile(`^[\w-]+(?:\[[\w-]*\])*$`)
)

func uncertain(what string) error { return fmt.Errorf("%s: %w", what, ErrUncertain) }

// boundary returns the boundary of a Content-Type of multipart/form-data.
func boundary(contentType string) (string, error) {
	m := multipartParams.FindStringSubmatch(contentType[len(multipartType):])
	if m == nil {
		return "", uncertain("multipart Content-Type with an unusual boundary")
	}
	return m[1] + m[2], nil
}

// parseMultipart reads a multipart body.
func (q *Request) parseMultipart(body []byte, l Limits) error {
	delimiter := "--" + q.boundary
	rest, ok := bytes.CutPrefix(body, []byte(delimiter))
	if !ok {
		return uncertain("multipart body that does not begin with its boundary")
	}
	for fields := 0; ; {
		switch {
		case string(rest) == "--", string(rest) == "--\r\n":
			return q.checkNames()
		case !bytes.HasPrefix(rest, []byte("\r\n")):
			return uncertain("multipart body with an unusual boundary line")
		}
		p, afterHead, err := partHead(rest[2:])
		if err != nil {
			return err
		}
		// PHP ends a part also at a boundary without a carriage return.
		end := bytes.Index(afterHead, []byte("\n"+delimiter))
		if end < 1 || afterHead[end-1] != '\r' {
			return uncertain("multipart body with a part that does not end")
		}
		data := afterHead[:end-1]
		rest = afterHead[end+1+len(delimiter):]
		if p.file {
			switch {
			case len(q.Files) == l.Files:
				return uncertain("more files than PHP takes")
			case p.filename == "" && len(data) > 0:
				return uncertain("a file without a name") // PHP ignores its content
			}
			q.Files = append(q.Files, File{Name: p.name, Filename: p.filename, ContentType: p.contentType, Data: data})
			continue
		}
		if fields++; fields > l.Vars {
			return uncertain("more fields than PHP takes")
		}
		if err := q.field(p.name, string(data), l); err != nil {
			return err
		}
	}
}

// field adds a field that is no file.
func (q *Request) field(name, text string, l Limits) error {
	if strings.EqualFold(name, "MAX_FILE_SIZE") && len(q.Files) > 0 {
		return uncertain("MAX_FILE_SIZE behind a file") // it holds for later files only
	}
	return q.Post.register(name, text, l.Depth)
}

// checkNames refuses files with names of other fields or files: PHP ignores a field
// behind a file of the same name, and mixes two files.
func (q *Request) checkNames() error {
	seen := map[string]bool{}
	for _, f := range q.Files {
		if seen[f.Name] && !strings.HasSuffix(f.Name, "[]") {
			return uncertain("two files have the same name")
		}
		seen[f.Name] = true
		base, _, _ := strings.Cut(f.Name, "[")
		if _, ok := q.Post.Get(base); ok {
			return uncertain("a file and a field have the same name")
		}
	}
	return nil
}

// part is the head of a part.
type part struct {
	name, filename, contentType string
	file                        bool // it has a filename, maybe an empty one
}

// partHead reads the headers of a part. It returns what follows the empty line.
func partHead(b []byte) (p part, rest []byte, err error) {
	rest = b
	disposition, types := 0, 0
	for {
		line, after, ok := bytes.Cut(rest, []byte("\r\n"))
		if !ok || len(line) > maxPartHeader {
			return part{}, nil, uncertain("multipart body with an unusual header")
		}
		rest = after
		if len(line) == 0 {
			break
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || !partHeaderName.MatchString(name) || strings.ContainsFunc(value, isControl) {
			return part{}, nil, uncertain("multipart body with an unusual header")
		}
		value = strings.Trim(value, " ")
		switch strings.ToLower(name) {
		case "content-disposition":
			disposition++
			err = p.disposition(value)
		case "content-type":
			types++
			p.contentType = value
		}
		if err != nil {
			return part{}, nil, err
		}
	}
	if disposition != 1 || types > 1 {
		return part{}, nil, uncertain("multipart body without one Content-Disposition in each part")
	}
	return p, rest, nil
}

var partHeaderName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }

// disposition reads a Content-Disposition.
func (p *part) disposition(value string) error {
	const formData = "form-data"
	if len(value) < len(formData) || !strings.EqualFold(value[:len(formData)], formData) {
		return uncertain("multipart body with a part that is no form-data")
	}
	named, extended := false, false
	for rest := value[len(formData):]; rest != ""; {
		if e := extendedName.FindString(rest); e != "" {
			rest, extended = rest[len(e):], true
			continue
		}
		m := partParam.FindStringSubmatch(rest)
		if m == nil || evenBackslashes.MatchString(m[2]) {
			return uncertain("multipart body with an unusual Content-Disposition")
		}
		rest = rest[len(m[0]):]
		text := unquote.Replace(m[2]) + m[3]
		switch key := strings.ToLower(m[1]); {
		case key == "name" && !named:
			p.name, named = text, true
		case key == "filename" && !p.file:
			p.filename, p.file = text, true
		default:
			return uncertain("multipart body with an unknown or repeated parameter of Content-Disposition")
		}
	}
	switch {
	case p.name == "", extended && !p.file: // not to all readers it is a file
		return uncertain("multipart body with a part without a name")
	case p.file && !fileName.MatchString(p.name):
		return uncertain("multipart body with a file in a field of an unusual name")
	}
	return nil
}

var (
	quote   = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	unquote = strings.NewReplacer(`\\`, `\`, `\"`, `"`)
)

// encodeMultipart writes the fields and then the files.
func (q *Request) encodeMultipart() (contentType string, body []byte) {
	boundary := "tokenledger-" + rand.Text()
	var b bytes.Buffer
	q.Post.each(func(path []string, text string) {
		name := path[0]
		if len(path) > 1 {
			name += "[" + strings.Join(path[1:], "][") + "]"
		}
		fmt.Fprintf(&b, "--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", boundary, quote.Replace(name), text)
	})
	for _, f := range q.Files {
		fmt.Fprintf(&b, "--%s\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"%s\"\r\n",
			boundary, f.Name, quote.Replace(f.Filename))
		if f.ContentType != "" {
			fmt.Fprintf(&b, "Content-Type: %s\r\n", f.ContentType)
		}
		b.WriteString("\r\n")
		b.Write(f.Data)
		b.WriteString("\r\n")
	}
	fmt.Fprintf(&b, "--%s--\r\n", boundary)
	return multipartType + "; boundary=" + boundary, b.Bytes()
}
