<?php
// Reads "<query> <name>" in hexadecimal, a line each, and answers what PHP takes
// for the parameter: "-" for nothing, "s" and the value, "a" for an array.
error_reporting(0);
while (($line = fgets(STDIN)) !== false) {
    [$query, $name] = explode(' ', rtrim($line, "\n"));
    $name = hex2bin($name);
    $all = [];
    parse_str(hex2bin($query), $all); // the code that fills $_GET
    if (!array_key_exists($name, $all)) {
        echo "-\n";
    } elseif (is_string($all[$name])) {
        echo 's', bin2hex($all[$name]), "\n";
    } else {
        echo "a\n";
    }
}
