# Makes Windows Server an initiator of the lab: its iSCSI name, discovery, a login over each network with CHAP in both
# directions, one disk over two paths, and NTFS on it where it carries nothing. After windows-mpio-claim.ps1 and a restart.
# It may be run again: what is done stays.
param([string] $LabFile = 'C:\plexus\lab.env')
$ErrorActionPreference = 'Stop'
$DiskTimeoutSeconds = 60

$lab = @{}
foreach ($line in Get-Content -Path $LabFile) {
    if ($line -match '^([A-Z_]+)=(.*)$') { $lab[$Matches[1]] = $Matches[2] }
}
$paths = @(
    @{ Initiator = $lab.WINDOWS_ADDRESS_A; Target = $lab.TARGET_ADDRESS_A },
    @{ Initiator = $lab.WINDOWS_ADDRESS_B; Target = $lab.TARGET_ADDRESS_B }
)

Set-Service -Name MSiSCSI -StartupType Automatic
Start-Service -Name MSiSCSI

# The target admits this name only.
$port = Get-InitiatorPort -ConnectionType iSCSI | Select-Object -First 1
if ($port.NodeAddress -ne $lab.WINDOWS_NAME) {
    Set-InitiatorPort -NodeAddress $port.NodeAddress -NewNodeAddress $lab.WINDOWS_NAME
}

# What the target must prove (mutual CHAP). What this machine proves goes with each login below.
Set-IscsiChapSecret -ChapSecret $lab.MUTUAL_SECRET

# Discovery needs no CHAP: a portal tells each initiator of those targets only that admit its name.
foreach ($path in $paths) {
    $known = Get-IscsiTargetPortal | Where-Object { $_.TargetPortalAddress -eq $path.Target }
    if (-not $known) {
        New-IscsiTargetPortal -TargetPortalAddress $path.Target -TargetPortalPortNumber $lab.ISCSI_PORT `
            -InitiatorPortalAddress $path.Initiator | Out-Null
    }
}
Get-IscsiTargetPortal | Update-IscsiTargetPortal

# A session for each path. Persistent ones are logged in again after a restart.
foreach ($path in $paths) {
    $connected = Get-IscsiConnection | Where-Object { $_.TargetAddress -eq $path.Target }
    if (-not $connected) {
        Connect-IscsiTarget -NodeAddress $lab.WINDOWS_TARGET_NAME `
            -TargetPortalAddress $path.Target -TargetPortalPortNumber $lab.ISCSI_PORT `
            -InitiatorPortalAddress $path.Initiator `
            -AuthenticationType MUTUALCHAP -ChapUsername $lab.CHAP_USER -ChapSecret $lab.CHAP_SECRET `
            -IsMultipathEnabled $true -IsPersistent $true | Out-Null
    }
}

$deadline = (Get-Date).AddSeconds($DiskTimeoutSeconds)
do {
    Start-Sleep -Seconds 2
    Update-HostStorageCache
    $disks = @(Get-Disk | Where-Object { $_.BusType -eq 'iSCSI' -and $_.FriendlyName -like 'PLEXUS*' })
} until ($disks.Count -gt 0 -or (Get-Date) -gt $deadline)
# Two disks would be the same one over each path: writing to both destroys what is on it.
if ($disks.Count -ne 1) {
    throw "One disk of Plexus is expected, there are $($disks.Count). Two: MPIO has not taken it; restart and run this again."
}
$disk = $disks[0]

# Windows Server leaves disks of a SAN offline and read-only until told otherwise.
if ($disk.IsOffline) { Set-Disk -Number $disk.Number -IsOffline $false }
if ($disk.IsReadOnly) { Set-Disk -Number $disk.Number -IsReadOnly $false }

# RAW: it has no partition table. Any other disk keeps what it has.
if ($disk.PartitionStyle -eq 'RAW') {
    Initialize-Disk -Number $disk.Number -PartitionStyle GPT
    New-Partition -DiskNumber $disk.Number -UseMaximumSize -AssignDriveLetter |
        Format-Volume -FileSystem NTFS -NewFileSystemLabel Plexus -Confirm:$false | Out-Null
}

Get-IscsiConnection | Format-Table -Property 'InitiatorAddress', 'TargetAddress', 'TargetPortNumber'
Get-Disk -Number $disk.Number |
    Format-Table -Property 'Number', 'FriendlyName', 'SerialNumber', 'OperationalStatus', 'PartitionStyle', 'Size'
Get-Partition -DiskNumber $disk.Number | Format-Table -Property 'PartitionNumber', 'DriveLetter', 'Size'
mpclaim.exe -s -d
