package php_test

import "strings"

// clients are multipart bodies as clients send them, each as recorded or as its
// source writes it.
var clients = []sample{
	client("------------------------ea517f107ecaad7e", // curl 7.88
		`Content-Disposition: form-data; name="token_auth"`, "", "x",
		`Content-Disposition: form-data; name="a[b]"`, "", `é "q"`,
		`Content-Disposition: form-data; name="f"; filename="f.txt"`, "Content-Type: text/plain", "", "data",
		`Content-Disposition: form-data; name="g[]"; filename="é b.txt"`, "Content-Type: text/plain", "", "é",
		`Content-Disposition: form-data; name="h"; filename="a%22b\c"`, "Content-Type: text/plain", "", "data",
		`Content-Disposition: form-data; name="j"`, "Content-Type: text/plain", "", "data"),
	client("4cb0d7e8a51d3a7ee0a7b5ae1c9e9a5b", // Python's requests
		`Content-Disposition: form-data; name="token_auth"`, "", "x",
		`Content-Disposition: form-data; name="f"; filename="f.txt"`, "", "data",
		`Content-Disposition: form-data; name="g[]"; filename="é %22b%22.txt"`, "Content-Type: text/plain", "", "é"),
	client("----formdata-undici-050477204288", // Node's fetch
		`Content-Disposition: form-data; name="token_auth"`, "", "x",
		`Content-Disposition: form-data; name="a[b]"`, "", "é \"q\"\r\n",
		`Content-Disposition: form-data; name="g[]"; filename="é %22b\.txt"`, "Content-Type: application/octet-stream", "", "é",
		`Content-Disposition: form-data; name="h"; filename="blob"`, "Content-Type: application/octet-stream", "", "x"),
	client("df1f9ef7bed45d2c0bf1c64b4b474878bb21d7ed5280cecdd6cfdff51786", // Go's mime/multipart
		`Content-Disposition: form-data; name="token_auth"`, "", "x",
		`Content-Disposition: form-data; name="n\"q\\r"`, "", "1",
		`Content-Disposition: form-data; name="f"; filename="é \"b\\c\".txt"`, "Content-Type: application/octet-stream", "", "data"),
	client("----WebKitFormBoundary7MA4YWxkTrZu0gW", // Chrome and Safari; an empty file input
		`Content-Disposition: form-data; name="token_auth"`, "", "x",
		`Content-Disposition: form-data; name="f"; filename=""`, "Content-Type: application/octet-stream", "", "",
		`Content-Disposition: form-data; name="g"; filename="C:\d\a.txt"`, "Content-Type: text/plain", "", "data"),
	client("---------------------------9051914041544843365972754266", // Firefox
		`Content-Disposition: form-data; name="idSite"`, "", "1",
		`Content-Disposition: form-data; name="f"; filename="a.txt"`, "Content-Type: text/plain", "", "data"),
	client("5f7a3c0e9f1f2a6f1c1a0b2d3e4f5a6b7c8d9e0f", // PHP's Guzzle
		`Content-Disposition: form-data; name="token_auth"`, "Content-Length: 1", "", "x",
		`Content-Disposition: form-data; name="f"; filename="a.txt"`, "Content-Length: 4", "Content-Type: text/plain", "", "data"),
	client("--------------------------378912347895123478951234", // Node's form-data
		`Content-Disposition: form-data; name="token_auth"`, "", "x"),
	client("b0b3a6a4-9a1f-4a3e-8f0e-0e8f7c6d5b4a", // OkHttp
		`Content-Disposition: form-data; name="token_auth"`, "Content-Length: 1", "", "x"),
	client("Xy_-Zz19AbCdEfGhIjKlMnOpQr", // Apache HttpClient
		`Content-Disposition: form-data; name="token_auth"`, "Content-Type: text/plain; charset=ISO-8859-1", "Content-Transfer-Encoding: 8bit", "", "x"),
	client(`"4d1f1b0c-8f7a-4c43-9b8e-7d2a1f0e3c5b"`, // .NET
		"Content-Type: text/plain; charset=utf-8", "Content-Disposition: form-data; name=token_auth", "", "x",
		`Content-Disposition: form-data; name=f; filename=a.txt; filename*=utf-8''a.txt`, "", "data"),
}

// client returns a request with parts. A part is its headers, an empty line and
// its content.
func client(boundary string, lines ...string) sample {
	delimiter := "--" + strings.Trim(boundary, `"`)
	var b strings.Builder
	b.WriteString(delimiter + "\r\n")
	content := false
	for i, line := range lines {
		b.WriteString(line + "\r\n")
		switch {
		case content && i < len(lines)-1:
			b.WriteString(delimiter + "\r\n")
			content = false
		case line == "":
			content = true
		}
	}
	b.WriteString(delimiter + "--\r\n")
	return sample{"POST", "a=1", "multipart/form-data; boundary=" + boundary, b.String()}
}
