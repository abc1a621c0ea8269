<?php require __DIR__ . '/../echo.inc';
