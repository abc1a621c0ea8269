# Reads and answers as php.php does, for urllib.parse.parse_qs with and without
# keep_blank_values.
import sys
from urllib.parse import parse_qs


def taken(query, name, blank):
    values = parse_qs(query, keep_blank_values=blank).get(name)
    if values is None:
        return "-"
    if len(values) > 1:
        return "a"
    return "s" + values[0].encode("utf-8", "surrogatepass").hex()


for line in sys.stdin:
    query, name = (bytes.fromhex(part).decode("latin-1") for part in line.rstrip("\n").split(" "))
    print(taken(query, name, False), taken(query, name, True), flush=True)
